//! What a pull does not believe, does not do, and how it says so.

use std::fs;
use std::os::unix::fs::symlink;
use std::sync::Arc;

use neuron::hub::PullError;
use rustls::pki_types::PrivatePkcs8KeyDer;

use crate::mock::{Fault, MockHub};
use crate::{Scene, ask, noise, one_file};

#[test]
fn wrong_bytes_never_get_the_final_name() {
    let hub = one_file(&noise(100_000));
    hub.state().faults.extend([Fault::Spoilt]);
    let mut scene = Scene::new();
    let error = scene.pull(hub.settings(None), &ask(None, None)).unwrap_err();
    assert!(matches!(&error, PullError::Corrupt(why) if why.contains("sha256")), "{error}");
    assert!(scene.files().is_empty() && scene.parts().is_empty());
    // A spoilt beginning is found at the end, and one more try begins with nothing.
    hub.state().faults.extend([Fault::Cut(50_000), Fault::Spoilt]);
    scene.pull(hub.settings(None), &ask(None, None)).unwrap();
    assert_eq!(fs::read(scene.path("m-Q8_0.gguf")).unwrap(), noise(100_000));
}

#[test]
fn small_files_are_checked_too() {
    let hub = one_file(b"x");
    hub.state().faults.extend([Fault::Spoilt]);
    let mut scene = Scene::new();
    let error = scene.pull(hub.settings(None), &ask(Some("README.md"), None)).unwrap_err();
    assert!(matches!(&error, PullError::Corrupt(why) if why.contains("git blob")), "{error}");
    assert!(scene.files().is_empty());
}

#[test]
fn names_lead_nowhere_else() {
    let hub = one_file(b"x");
    for prefix in ["../", "/tmp/", "a/../../", "a\\"] {
        hub.state().prefix = prefix;
        let mut scene = Scene::new();
        let error = scene.pull(hub.settings(None), &ask(Some("*"), None)).unwrap_err();
        assert!(matches!(&error, PullError::Corrupt(why) if why.contains("leave its place")));
        assert!(!scene.models().exists());
    }
}

#[test]
fn links_are_not_followed() {
    let hub = MockHub::new(&[("sub/README.md", b"new"), ("m-Q8_0.gguf", b"x")]);
    let mut scene = Scene::new();
    let outside = tempfile::tempdir().unwrap();
    fs::write(outside.path().join("README.md"), "mine").unwrap();
    fs::create_dir_all(scene.models()).unwrap();
    symlink(outside.path(), scene.path("sub")).unwrap();
    let error = scene.pull(hub.settings(None), &ask(Some("README.md"), None)).unwrap_err();
    assert!(matches!(&error, PullError::Disk(why) if why.contains("link")), "{error}");
    // A link in the place of the file itself gives way; what it led to stays.
    symlink(outside.path().join("README.md"), scene.path("m-Q8_0.gguf")).unwrap();
    scene.pull(hub.settings(None), &ask(None, None)).unwrap();
    assert_eq!(fs::read(scene.path("m-Q8_0.gguf")).unwrap(), b"x");
    assert_eq!(fs::read(outside.path().join("README.md")).unwrap(), b"mine");
}

#[test]
fn the_token_is_for_the_hub_alone() {
    let hub = one_file(&noise(1000));
    hub.state().gate = Some("hf_secret".to_owned());
    let mut scene = Scene::new();
    scene.pull(hub.settings(Some("hf_secret")), &ask(None, None)).unwrap();
    let (to_hub, to_others): (Vec<_>, Vec<_>) =
        hub.take_seen().into_iter().partition(|seen| seen.is_hub);
    assert_eq!((to_hub.len(), to_others.len()), (2, 1));
    assert!(to_hub.iter().all(|seen| seen.authorization.as_deref() == Some("Bearer hf_secret")));
    assert_eq!(to_others[0].authorization, None);
}

#[test]
fn a_gated_model_is_explained() {
    let hub = one_file(&noise(1000));
    hub.state().gate = Some("hf_secret".to_owned());
    let mut scene = Scene::new();
    let mut said = |token| match scene.pull(hub.settings(token), &ask(None, None)).unwrap_err() {
        PullError::Refused(why) => why,
        other => panic!("{other:?}"),
    };
    let without = said(None);
    for word in ["gated", "Accept its terms", "HF_TOKEN", "/settings/tokens", "/org/model"] {
        assert!(without.contains(word), "{without}");
    }
    let with = said(Some("hf_other"));
    assert!(with.contains("no access") && !with.contains("hf_other"), "{with}");
}

#[test]
fn what_is_not_there_is_said_so() {
    let hub = one_file(&noise(10));
    let mut scene = Scene::new();
    let mut said = |name: &str| {
        let ask = neuron::hub::Ask { name: name.parse().unwrap(), ..ask(None, None) };
        scene.pull(hub.settings(None), &ask).unwrap_err().to_string()
    };
    assert!(said("org/model@v9").contains("no revision `v9`"));
    assert!(said("org/other").contains("look at the name"));
    // Requirement 45: a name that is only reserved.
    hub.state().files.clear();
    assert!(said("org/model").contains("not a published model"));
    assert!(!scene.models().exists());
}

#[test]
fn several_files_are_listed_with_their_sizes() {
    let hub = MockHub::new(&[("m-Q4_K_M.gguf", &noise(1500)), ("m-Q8_0.gguf", &noise(2000))]);
    let mut scene = Scene::new();
    let error = scene.pull(hub.settings(None), &ask(None, None)).unwrap_err().to_string();
    assert!(error.contains("1.5 kB  m-Q4_K_M.gguf"), "{error}");
    assert!(error.contains("2.0 kB  m-Q8_0.gguf") && error.contains("--quant"), "{error}");
    scene.pull(hub.settings(None), &ask(None, Some("q4_k_m"))).unwrap();
    assert_eq!(scene.files(), ["m-Q4_K_M.gguf"]);
}

#[test]
fn a_model_that_no_load_takes_is_refused_before_its_weights_come() {
    let config = br#"{"architectures": ["LlamaForCausalLM"], "model_type": "llama"}"#;
    let weights = noise(1000);
    let files: [(&str, &[u8]); 3] =
        [("config.json", config), ("tokenizer.json", b"{}"), ("model.safetensors", &weights)];
    let hub = MockHub::new(&files);
    let error = Scene::new().pull(hub.settings(None), &ask(None, None)).unwrap_err().to_string();
    assert!(error.contains("not supported") && error.contains("qwen3"), "{error}");
    assert!(hub.take_seen().iter().all(|seen| !seen.path.contains("safetensors")));
}

#[test]
fn two_pulls_into_one_directory_do_not_meet() {
    let hub = one_file(&noise(10));
    let mut scene = Scene::new();
    scene.pull(hub.settings(None), &ask(None, None)).unwrap();
    let lock = fs::File::open(scene.path(".pull/lock")).unwrap();
    lock.lock().unwrap();
    let error = scene.pull(hub.settings(None), &ask(None, None)).unwrap_err().to_string();
    assert!(error.contains("another pull"), "{error}");
}

#[test]
fn a_disk_without_room_is_left_alone() {
    let hub = one_file(&noise(10));
    hub.state().claim = Some(u64::MAX / 4);
    let mut scene = Scene::new();
    let error = scene.pull(hub.settings(None), &ask(None, None)).unwrap_err();
    assert!(matches!(&error, PullError::Disk(why) if why.contains("are free")), "{error}");
    assert!(scene.parts().is_empty() && hub.take_seen().len() == 1);
}

#[test]
fn more_than_was_announced_is_not_taken() {
    let hub = one_file(&noise(10_000));
    hub.state().claim = Some(9_999);
    let mut scene = Scene::new();
    let error = scene.pull(hub.settings(None), &ask(None, None)).unwrap_err();
    assert!(matches!(&error, PullError::Corrupt(why) if why.contains("announced")), "{error}");
    assert!(scene.files().is_empty());
    // Less than that never becomes whole, and the tries end.
    hub.state().claim = Some(10_001);
    assert!(scene.pull(hub.settings(None), &ask(None, None)).is_err());
    assert!(scene.files().is_empty());
}

/// Answers handshakes with a certificate that nobody has signed, until the test ends.
fn unknown_host() -> String {
    let signed = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
    let key = PrivatePkcs8KeyDer::from(signed.signing_key.serialize_der());
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = rustls::ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![signed.cert.der().clone()], key.into())
        .unwrap();
    let config = Arc::new(config);
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    std::thread::spawn(move || {
        for mut stream in listener.incoming().flatten() {
            let mut tls = rustls::ServerConnection::new(config.clone()).unwrap();
            while tls.is_handshaking() && tls.complete_io(&mut stream).is_ok() {}
        }
    });
    format!("https://localhost:{port}")
}

#[test]
fn a_host_that_cannot_prove_who_it_is_gets_no_token() {
    let hub = one_file(&noise(10));
    let mut settings = hub.settings(Some("hf_secret"));
    settings.endpoint = unknown_host();
    let mut scene = Scene::new();
    let error = scene.pull(settings, &ask(None, None)).unwrap_err();
    // A system without authorities trusts nobody either.
    let distrusts = |why: &str| why.contains("not trusted") || why.contains("no certificates of");
    let told = |why: &str| distrusts(why) && why.contains("SSL_CERT_FILE");
    assert!(matches!(&error, PullError::Refused(why) if told(why)), "{error}");
    assert!(scene.told.is_empty(), "it was tried again: {:?}", scene.told);
}
