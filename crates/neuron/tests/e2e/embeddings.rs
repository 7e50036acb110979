//! `POST /v1/embeddings`, with the product's own engine and with a scripted one.

use std::fs;
use std::path::Path;

use serde_json::{Value, json};
use testkit::Script;

use crate::node::{MODEL, Node};

/// Makes a model one that gives embeddings, as the files of such models do.
fn add_pooling(dir: &Path, mode: &str) {
    let modules = ["Transformer", "Pooling", "Normalize"]
        .map(|name| json!({"type": format!("sentence_transformers.models.{name}")}));
    fs::create_dir_all(dir.join("1_Pooling")).unwrap();
    let pooling = json!({"word_embedding_dimension": 32, mode: true});
    fs::write(dir.join("1_Pooling/config.json"), pooling.to_string()).unwrap();
    fs::write(dir.join("modules.json"), json!(modules).to_string()).unwrap();
}

async fn embed(node: &Node, more: Value) -> Value {
    let mut body = json!({"model": MODEL});
    body.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    let answer = node.post("/v1/embeddings", &body).await;
    assert_eq!(answer.status, 200, "{}", answer.text());
    answer.json()
}

fn vector(answer: &Value, index: usize) -> Vec<f64> {
    let values = answer["data"][index]["embedding"].as_array().unwrap();
    values.iter().map(|value| value.as_f64().unwrap()).collect()
}

fn dot(a: &[f64], b: &[f64]) -> f64 {
    a.iter().zip(b).map(|(a, b)| a * b).sum()
}

#[tokio::test]
async fn texts_and_tokens_become_vectors_of_length_1() {
    for mode in ["pooling_mode_lasttoken", "pooling_mode_mean_tokens"] {
        let node = Node::with_random_model_after(|dir| add_pooling(dir, mode)).await;
        let both = embed(&node, json!({"input": ["a cat", "two dogs"]})).await;
        let (first, second) = (vector(&both, 0), vector(&both, 1));
        assert_eq!(first.len(), 32);
        assert!((dot(&first, &first) - 1.0).abs() < 1e-5 && dot(&first, &second) < 0.999);
        assert_eq!(both["usage"], json!({"prompt_tokens": 13, "total_tokens": 13}));
        // Alone, again, as tokens: the same numbers.
        let tokens = testkit::byte_tokens("a cat");
        for input in [json!("a cat"), json!(["a cat"]), json!(tokens), json!([tokens])] {
            assert_eq!(vector(&embed(&node, json!({ "input": input })).await, 0), first);
        }
        let cut = vector(&embed(&node, json!({"input": "a cat", "dimensions": 8})).await, 0);
        let length = dot(&first[..8], &first[..8]).sqrt();
        assert!(cut.len() == 8 && (dot(&cut, &first[..8]) - length).abs() < 1e-5);
        let base64 = embed(&node, json!({"input": "a cat", "encoding_format": "base64"})).await;
        assert_eq!(
            base64["data"][0]["embedding"].as_str().unwrap().len(),
            (32_usize * 4).div_ceil(3) * 4
        );
        assert!(node.report(MODEL).await.capabilities.contains(&"embeddings".to_owned()));
        node.settled().await;
        node.stop().await;
    }
}

#[tokio::test]
async fn what_cannot_be_embedded_is_refused_by_name() {
    let plain = Node::with(Script::default()).await;
    let refused = plain.post("/v1/embeddings", &json!({"model": MODEL, "input": "x"})).await;
    assert_eq!(
        (refused.status.as_u16(), &refused.json()["error"]["code"]),
        (400, &json!("no_embeddings"))
    );
    plain.stop().await;

    let node = Node::empty().await;
    node.add(MODEL, &Script { context: 16, ..Script::default() });
    add_pooling(&node.models.path().join(MODEL), "pooling_mode_lasttoken");
    assert_eq!(node.load(MODEL).await.status, 200);
    for (more, param) in [
        (json!({"input": "x".repeat(16)}), "input"),
        (json!({"input": ["ok", "x".repeat(50)]}), "input"),
        (json!({"input": [70_000]}), "input"),
        (json!({"input": ""}), "input"),
        (json!({"input": "x", "dimensions": 5}), "dimensions"),
    ] {
        let mut body = json!({"model": MODEL});
        body.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        let refused = node.post("/v1/embeddings", &body).await;
        assert_eq!(
            (refused.status.as_u16(), &refused.json()["error"]["param"]),
            (400, &json!(param)),
            "{more}"
        );
    }
    // More inputs than run, or wait, at once.
    let many = embed(&node, json!({"input": vec!["abc"; 200]})).await;
    assert_eq!(
        (many["data"].as_array().unwrap().len(), &many["data"][199]["index"]),
        (200, &json!(199))
    );
    node.settled().await;
    node.stop().await;
}
