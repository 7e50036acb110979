//! Bodies that are no JSON never reach a node.

use control::ModelStatus::Ready;
use testkit::fake_neuron::FakeNeuron;
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
