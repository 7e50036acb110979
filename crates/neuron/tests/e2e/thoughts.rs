//! How long the sample model thinks, in every dialect that can say so.

use serde_json::{Value, json};
use testkit::Program;

use crate::client;
use crate::node::MODEL;
use crate::prefix::sprout;

async fn post(program: &Program, path: &str, more: Value) -> Value {
    let mut body = json!({"model": MODEL, "temperature": 0});
    body.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    let answer = client::post(program.address, path, &body).await;
    assert_eq!(answer.status, 200, "{}", answer.text());
    answer.json()
}

const QUESTION: &str = "What is 17 plus 25?";

/// Tokens of thoughts, and the words behind them.
async fn chat(program: &Program, more: Value) -> (u64, String) {
    let messages = json!([{"role": "user", "content": QUESTION}]);
    let mut body = json!({"max_tokens": 200, "messages": messages});
    body.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    let answer = post(program, "/v1/chat/completions", body).await;
    let details = &answer["usage"]["completion_tokens_details"];
    let words = answer["choices"][0]["message"]["content"].as_str().unwrap_or_default();
    (details["reasoning_tokens"].as_u64().unwrap_or(0), words.to_owned())
}

// Requirement 23
#[tokio::test]
async fn thoughts_end_when_their_budget_does() {
    let (program, _dir) = sprout(json!({}), json!({})).await;
    let (free, _) = chat(&program, json!({"enable_thinking": true})).await;
    assert!(free > 5, "{free} tokens of thoughts leave nothing to bound");
    for budget in [0, 1, 4, 5] {
        for wish in [
            json!({"enable_thinking": true, "thinking_budget": budget}),
            json!({"thinking": {"type": "enabled", "budget_tokens": budget}}),
            json!({"reasoning": {"enabled": true, "max_tokens": budget}}),
        ] {
            let (thoughts, words) = chat(&program, wish.clone()).await;
            // What ends them has three tokens at most, however small the budget is.
            assert!(thoughts <= budget.max(3), "{thoughts} tokens for {wish}");
            assert!(!words.is_empty() && !words.contains("think>"), "{words:?} for {wish}");
        }
    }
    let (thoughts, words) =
        chat(&program, json!({"reasoning_effort": "low", "max_tokens": 25})).await;
    assert!((1..=5).contains(&thoughts) && !words.is_empty(), "{thoughts} {words:?}");
    for hidden in [
        json!({"reasoning_effort": "none"}),
        json!({"include_reasoning": false}),
        json!({"reasoning": {"exclude": true}}),
    ] {
        assert_eq!(chat(&program, hidden).await.0, 0);
    }
    let messages = json!([{"role": "user", "content": QUESTION}]);
    for thinking in
        [json!(null), json!({"type": "disabled"}), json!({"type": "enabled", "display": "omitted"})]
    {
        let body = json!({"max_tokens": 40, "messages": messages, "thinking": thinking});
        let message = post(&program, "/v1/messages", body).await;
        let kinds: Vec<&Value> =
            message["content"].as_array().unwrap().iter().map(|it| &it["type"]).collect();
        assert_eq!(kinds, ["text"], "{message}");
    }
    let body = json!({"input": QUESTION, "max_output_tokens": 40, "reasoning": {"effort": "low"}});
    let response = post(&program, "/v1/responses", body).await;
    let thoughts = response["usage"]["output_tokens_details"]["reasoning_tokens"].as_u64().unwrap();
    assert!((1..=8).contains(&thoughts), "{response}");
}

/// Claude Code's first block changes with each request, and is no part of the prompt.
// Requirement 131
#[tokio::test]
async fn a_billing_block_does_not_keep_turns_from_sharing_their_beginning() {
    let (program, _dir) = sprout(json!({}), json!({})).await;
    let rules = "You are a careful assistant in a terminal. Answer in few words. ".repeat(12);
    let turn = async |cch: &str, messages: Value| {
        let billing = format!("x-anthropic-billing-header: cc_version=2.1.197; cch={cch};");
        let system = json!([
            {"type": "text", "text": billing},
            {"type": "text", "text": rules, "cache_control": {"type": "ephemeral"}},
        ]);
        let body = json!({"max_tokens": 8, "system": system, "messages": messages});
        post(&program, "/v1/messages", body).await
    };
    let first = json!({"role": "user", "content": "What is a neuron?"});
    let answer = turn("a1b2c", json!([first])).await;
    let prompt = answer["usage"]["input_tokens"].as_u64().unwrap();
    let said = json!({"role": "assistant", "content": answer["content"]});
    let more = json!({"role": "user", "content": "And what is cortex?"});
    let second = turn("99999", json!([first, said, more])).await;
    let cached = second["usage"]["cache_read_input_tokens"].as_u64().unwrap();
    assert!(cached * 100 >= prompt * 95, "{cached} of {prompt}");
}
