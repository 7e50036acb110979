//! Requests as they come over the wire, rendered byte for byte as jinja2 renders them.

use dialog::{GenerateRequest, Prompt, Reasoning};
use serde_json::Value;
use text::{RenderOptions, SpecialTokens, Template};

fn fixture(name: &str) -> String {
    let path = format!("{}/tests/fixtures/qwen/{name}", env!("CARGO_MANIFEST_DIR"));
    std::fs::read_to_string(path).expect("the fixture is in the repository")
}

fn request(body: &Value) -> GenerateRequest {
    let mut body = body.clone();
    body["model"] = "m".into();
    let (request, _) = wire::Dialect::OpenaiChat.parse(body.to_string().as_bytes()).unwrap();
    request
}

fn render(template: &Template, request: &GenerateRequest) -> String {
    let Prompt::Chat(messages) = &request.prompt else { panic!("a chat") };
    let options = RenderOptions {
        add_generation_prompt: true,
        enable_thinking: match request.reasoning {
            Reasoning::ModelDefault => None,
            Reasoning::Off => Some(false),
            Reasoning::On => Some(true),
        },
        arguments: request.template_arguments.as_ref(),
    };
    template.render(messages, &request.tools, &options).expect("it renders")
}

// Requirements 1, 19, 35, 124 and 125
#[test]
fn conversations_render_as_jinja2_renders_them() {
    let cases: Vec<Value> = serde_json::from_str(&fixture("conversations.json")).expect("JSON");
    assert_eq!(cases.len(), 60);
    for name in ["qwen3", "qwen3_5", "qwen3_6"] {
        let source = fixture(&format!("{name}.jinja"));
        let template = Template::new(&source, SpecialTokens::default()).expect("it compiles");
        for (at, case) in cases.iter().enumerate() {
            let rendered = render(&template, &request(&case["body"]));
            let expected = case[name]["rendered"].as_str().expect("a text");
            assert_eq!(rendered, expected, "conversation {at} of {name}: {}", case["body"]);
        }
    }
}
