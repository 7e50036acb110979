//! What is cut off goes on; what is there is not fetched again.

use std::fs;
use std::time::Duration;

use neuron::hub::PullError;

use crate::mock::{Fault, MockHub};
use crate::{Scene, ask, noise, one_file, sprout};

#[test]
fn a_cut_stream_goes_on_where_it_ended() {
    let bytes = noise(3_000_000);
    let hub = one_file(&bytes);
    hub.state().faults.extend([Fault::Cut(1_000_000), Fault::Cut(500_000)]);
    let mut scene = Scene::new();
    let pulled = scene.pull(hub.settings(None), &ask(None, None)).unwrap();
    assert_eq!(pulled.source, Some(scene.path("m-Q8_0.gguf")));
    assert_eq!(fs::read(scene.path("m-Q8_0.gguf")).unwrap(), bytes);
    let seen = hub.take_seen();
    let ranges: Vec<_> = seen.iter().filter(|seen| !seen.is_hub).map(|seen| &seen.range).collect();
    let expected = [None, Some("bytes=1000000-".into()), Some("bytes=1500000-".into())];
    assert_eq!(ranges, expected.iter().collect::<Vec<_>>());
    assert!(scene.parts().is_empty());
}

#[test]
fn a_silent_host_is_left_and_asked_again() {
    let bytes = noise(400_000);
    let hub = one_file(&bytes);
    hub.state().faults.extend([Fault::Hang(100_000)]);
    let mut scene = Scene::new();
    scene.patience.silence = Duration::from_millis(500);
    scene.pull(hub.settings(None), &ask(None, None)).unwrap();
    assert_eq!(fs::read(scene.path("m-Q8_0.gguf")).unwrap(), bytes);
    assert_eq!(hub.take_seen().last().unwrap().range.as_deref(), Some("bytes=100000-"));
}

#[test]
fn another_call_goes_on_where_the_first_one_was_ended() {
    let bytes = noise(2_000_000);
    let hub = one_file(&bytes);
    let broken = Fault::Status(503, None);
    hub.state().faults.extend([Fault::Cut(700_000)]);
    hub.state().faults.extend(vec![broken; 4]);
    let mut scene = Scene::new();
    let error = scene.pull(hub.settings(None), &ask(None, None)).unwrap_err();
    assert!(matches!(error, PullError::Unreachable(_)), "{error}");
    assert!(error.to_string().contains("503") && !error.to_string().contains("Signature"));
    assert_eq!((scene.parts(), scene.files().len()), (vec![700_000], 0));
    hub.take_seen();
    scene.pull(hub.settings(None), &ask(None, None)).unwrap();
    let seen = hub.take_seen();
    assert_eq!(seen.last().unwrap().range.as_deref(), Some("bytes=700000-"));
    assert_eq!(fs::read(scene.path("m-Q8_0.gguf")).unwrap(), bytes);
}

#[test]
fn a_host_without_ranges_begins_again() {
    let bytes = noise(400_000);
    let hub = one_file(&bytes);
    hub.state().faults.extend([Fault::Cut(100_000), Fault::NoRange]);
    let mut scene = Scene::new();
    scene.pull(hub.settings(None), &ask(None, None)).unwrap();
    assert_eq!(fs::read(scene.path("m-Q8_0.gguf")).unwrap(), bytes);
}

#[test]
fn a_second_pull_is_one_look_and_an_offline_one_none() {
    let hub = one_file(&noise(1000));
    let mut scene = Scene::new();
    scene.pull(hub.settings(None), &ask(None, None)).unwrap();
    hub.take_seen();
    let again = scene.pull(hub.settings(None), &ask(None, None)).unwrap();
    let seen = hub.take_seen();
    assert_eq!((again.fetched, seen.len()), (0, 1), "{seen:?}");
    assert!(seen[0].path.starts_with("/api/models/"));
    // Requirement 43: a warm directory asks nothing.
    let mut offline = hub.settings(None);
    offline.offline = true;
    let pulled = scene.pull(offline.clone(), &ask(None, Some("Q8_0"))).unwrap();
    assert_eq!((pulled.source, hub.take_seen().len()), (again.source, 0));
    // One that was changed is not what was fetched.
    fs::write(scene.path("m-Q8_0.gguf"), noise(999)).unwrap();
    let error = scene.pull(offline.clone(), &ask(None, None)).unwrap_err().to_string();
    assert!(error.contains("m-Q8_0.gguf") && error.contains("--offline"), "{error}");
    let error = Scene::new().pull(offline, &ask(None, None)).unwrap_err().to_string();
    assert!(error.contains("never fetched"), "{error}");
    assert!(hub.take_seen().is_empty());
    let pulled = scene.pull(hub.settings(None), &ask(None, None)).unwrap();
    assert_eq!((pulled.fetched, fs::read(scene.path("m-Q8_0.gguf")).unwrap()), (1, noise(1000)));
}

#[test]
fn what_another_program_fetched_is_taken_if_it_is_right() {
    let hub = one_file(&noise(1000));
    let mut scene = Scene::new();
    fs::create_dir_all(scene.models()).unwrap();
    fs::write(scene.path("m-Q8_0.gguf"), noise(1000)).unwrap();
    assert_eq!(scene.pull(hub.settings(None), &ask(None, None)).unwrap().fetched, 0);
    assert_eq!(hub.take_seen().len(), 1);
}

#[test]
fn an_index_brings_its_shards_and_no_others() {
    let config = fs::read(sprout().join("config.json")).unwrap();
    let shards = [noise(2000), noise(3000)];
    let index = br#"{"weight_map": {"a": "m-00001-of-00002.safetensors",
        "b": "m-00002-of-00002.safetensors"}}"#;
    let hub = MockHub::new(&[
        ("config.json", &config),
        ("tokenizer.json", b"{}"),
        ("chat_template.jinja", b"hello"),
        ("model.safetensors.index.json", index),
        ("m-00001-of-00002.safetensors", &shards[0]),
        ("m-00002-of-00002.safetensors", &shards[1]),
        ("consolidated.safetensors", &shards[1]),
    ]);
    let mut scene = Scene::new();
    let pulled = scene.pull(hub.settings(None), &ask(None, Some("Q4_K_M"))).unwrap();
    assert_eq!((pulled.fetched, pulled.source), (6, Some(scene.models())));
    assert_eq!(fs::read(scene.path("m-00002-of-00002.safetensors")).unwrap(), shards[1]);
    assert!(!scene.path("consolidated.safetensors").exists());
    // The index is read from the disk offline too.
    let mut offline = hub.settings(None);
    offline.offline = true;
    hub.take_seen();
    assert_eq!(scene.pull(offline, &ask(None, None)).unwrap().fetched, 0);
    assert!(hub.take_seen().is_empty());
}

#[test]
fn a_busy_hub_is_waited_for_as_long_as_it_asks() {
    let hub = one_file(&noise(1000));
    hub.state().api_faults.extend([Fault::Status(429, Some(1))]);
    hub.state().faults.extend([Fault::Status(500, None), Fault::Status(429, Some(0))]);
    let mut scene = Scene::new();
    scene.pull(hub.settings(None), &ask(None, None)).unwrap();
    let waits: Vec<_> = scene.told.iter().filter(|told| told.starts_with("Waiting")).collect();
    assert_eq!(waits.len(), 3, "{:?}", scene.told);
    assert!(waits[0].contains("429") && waits[0].contains("delay: 1s"), "{waits:?}");
    // A pause that nobody would wait for is told instead.
    hub.state().api_faults.extend([Fault::Status(429, Some(3600))]);
    let error = scene.pull(hub.settings(None), &ask(None, None)).unwrap_err();
    assert!(matches!(&error, PullError::Unreachable(why) if why.contains("3600 s")), "{error}");
}

#[test]
fn a_hub_that_is_not_there_is_said_to_be() {
    let hub = one_file(&noise(10));
    let mut settings = hub.settings(None);
    settings.endpoint = "http://127.0.0.1:9".to_owned();
    let mut scene = Scene::new();
    let error = scene.pull(settings, &ask(None, None)).unwrap_err();
    assert!(matches!(&error, PullError::Unreachable(why) if why.contains("127.0.0.1:9")));
    assert!(!scene.models().exists());
}

#[test]
fn a_new_commit_takes_the_place_of_the_old_one() {
    let hub = one_file(&noise(1000));
    let mut scene = Scene::new();
    scene.pull(hub.settings(None), &ask(None, None)).unwrap();
    {
        let mut state = hub.state();
        state.commit = "2".repeat(40);
        state.files.remove("m-Q8_0.gguf");
        state.files.insert("m2-Q8_0.gguf".into(), noise(500));
    }
    let pulled = scene.pull(hub.settings(None), &ask(None, None)).unwrap();
    assert_eq!((pulled.commit, scene.files()), ("2".repeat(40), vec!["m2-Q8_0.gguf".to_owned()]));
}
