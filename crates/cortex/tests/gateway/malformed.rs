//! Bodies that are no JSON never reach a node.

use control::ModelStatus::Ready;
use testkit::fake_neuron::FakeNeuron;
use testkit::must_fail_bodies;

use crate::client::TestGateway;

const ROUTES: [&str; 8] = [
    "/v1/chat/completions",
    "/v1/completions",
    "/v1/responses",
    "/v1/messages",
    "/v1/messages/count_tokens",
    "/v1/embeddings",
    "/tokenize",
    "/detokenize",
];

// robustness 21 to 25 and requirement 3
#[tokio::test]
async fn what_is_no_json_is_a_400_in_the_shape_of_its_route() {
    let neuron = FakeNeuron::start(&[("m", Ready)]).await;
    let gateway = TestGateway::over(&[&neuron]).await;
    for path in ROUTES {
        for (name, body) in must_fail_bodies() {
            let inside = [&b"{\"model\": \"m\", \"unknown\": "[..], &body, b"}"].concat();
            for body in [body, inside] {
                let answer = gateway.send("POST", path, "", &body).await;
                assert_eq!(answer.status, 400, "{name} on {path}: {}", answer.text());
                let told = answer.json();
                assert!(told["error"]["message"].is_string(), "{name} on {path}: {told}");
                let is_anthropic = path.starts_with("/v1/messages");
                assert_eq!(told["type"] == "error", is_anthropic, "{name} on {path}: {told}");
            }
        }
    }
    assert!(neuron.received().is_empty());
}
