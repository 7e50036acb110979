//! What is no JSON, or no request of HTTP, never reaches a node.

use control::ModelStatus::Ready;
use testkit::fake_neuron::FakeNeuron;
use testkit::heads::{head_cases, smuggled, status_of, told};
use testkit::{JSON_ROUTES, assert_refusal, must_fail_requests};

use crate::client::TestGateway;

// robustness 21 to 25 and requirement 3
#[tokio::test]
async fn what_is_no_json_is_a_400_in_the_shape_of_its_route() {
    let neuron = FakeNeuron::start(&[("m", Ready)]).await;
    let gateway = TestGateway::over(&[&neuron]).await;
    for (name, body) in must_fail_requests("m") {
        for path in JSON_ROUTES {
            let answer = gateway.send("POST", path, "", &body).await;
            assert_eq!(answer.status, 400, "{name} on {path}: {}", answer.text());
            assert_refusal(path, &name, &answer.json());
        }
    }
    assert!(neuron.received().is_empty());
}

// robustness 3 to 20
#[tokio::test]
async fn broken_heads_and_framings_are_refused_and_none_ends_the_gateway() {
    let neuron = FakeNeuron::start(&[("m", Ready)]).await;
    let gateway = TestGateway::over(&[&neuron]).await;
    let mut good = 0;
    for case in head_cases("m") {
        let told = told(gateway.addr, &case.bytes).await;
        let is_right = case.statuses.contains(&status_of(&told));
        assert!(is_right, "{}: {}", case.name, told.lines().next().unwrap_or("nothing"));
        good += usize::from(status_of(&told) == 200);
    }
    assert_eq!(neuron.received().len(), good, "the node sees nothing of the others");
    // A length beside chunks is left out of account, so that no two readers disagree.
    for bytes in smuggled("m") {
        let told = told(gateway.addr, &bytes).await;
        assert_eq!((status_of(&told), told.matches("HTTP/1.1 ").count()), (200, 1), "{told}");
    }
}
