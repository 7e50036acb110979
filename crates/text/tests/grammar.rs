//! The grammar of an answer, read by the engine's library with a real tokenizer.

use std::sync::Arc;

use dialog::{
    AnswerFormat, Defaults, GenerateRequest, Json, Message, Prompt, Reasoning, Role, ToolChoice,
    ToolSpec,
};
use llguidance::api::TopLevelGrammar;
use llguidance::toktrie::{ApproximateTokEnv, InferenceCapabilities, TokEnv, TokRxInfo, TokTrie};
use llguidance::{Matcher, ParserFactory};
use serde_json::{Value, json};
use text::{
    CallForm, FormatPart, Said, SpecialTokens, Specials, Template, TextError, TextModel, Tokenizer,
    ToolCallParser,
};

fn model() -> TextModel {
    let read = |name: &str| {
        let path = format!("{}/tests/fixtures/{name}", env!("CARGO_MANIFEST_DIR"));
        std::fs::read_to_string(path).expect("the fixture is in the repository")
    };
    let tokenizer = Tokenizer::from_json(read("tokenizer.json").as_bytes()).expect("in order");
    let template = Template::new(&read("sprout.jinja"), SpecialTokens::default()).expect("fine");
    let stop = tokenizer.id("<|im_end|>").expect("it is there");
    TextModel::new(tokenizer, Some(template), vec![stop], Defaults::default())
}

fn xml_model() -> TextModel {
    TextModel { call_form: CallForm::Xml, ..model() }
}

/// How a text stands to a grammar.
#[derive(Debug, PartialEq)]
enum Reading {
    Whole,
    Beginning,
    Outside,
}
use Reading::{Beginning, Outside, Whole};

struct Reader {
    model: TextModel,
    grammar: String,
}

impl Reader {
    fn new(model: TextModel, request: &GenerateRequest) -> Self {
        let prepared = model.prepare(request).expect("a prompt");
        let grammar = model.grammar(request, &prepared).expect("enforceable").expect("a grammar");
        Self { model, grammar }
    }

    fn matcher(&self) -> Matcher {
        let tokenizer = &self.model.tokenizer;
        let mut words: Vec<Vec<u8>> =
            (0..tokenizer.vocab_size()).map(|id| tokenizer.token_bytes(id).to_vec()).collect();
        tokenizer.added().for_each(|id| words[id as usize].insert(0, 0xff));
        words.push(vec![0xff, b'e']);
        let end = words.len() as u32 - 1;
        let trie = TokTrie::from(&TokRxInfo::new(end + 1, end), &words);
        let env: TokEnv = Arc::new(ApproximateTokEnv::new(trie));
        let factory = ParserFactory::new(&env, InferenceCapabilities::default(), &[]).unwrap();
        let grammar = TopLevelGrammar::from_lark(self.grammar.clone());
        Matcher::new(Ok(factory.create_parser(grammar).expect(&self.grammar)))
    }

    fn read(&self, text: &str) -> Reading {
        self.read_as(text, Specials::Parse)
    }

    fn read_as(&self, text: &str, specials: Specials) -> Reading {
        let mut matcher = self.matcher();
        let tokens = self.model.tokenizer.encode(text, specials).unwrap();
        match matcher.try_consume_tokens(&tokens) {
            Ok(read) if read < tokens.len() => Outside,
            Ok(_) if matcher.is_accepting().unwrap() => Whole,
            Ok(_) => Beginning,
            Err(error) => panic!("{error}"),
        }
    }
}

fn request() -> GenerateRequest {
    let prompt = Prompt::Chat(vec![Message::text(Role::User, "Hi")]);
    GenerateRequest { reasoning: Reasoning::Off, ..GenerateRequest::new("m", prompt) }
}

fn schema_request(schema: &Value) -> GenerateRequest {
    let format = Some(AnswerFormat::JsonSchema(Json(schema.to_string())));
    GenerateRequest { format, ..request() }
}

fn tool(name: &str, parameters: &Value) -> ToolSpec {
    let parameters = Some(Json(parameters.to_string()));
    ToolSpec { parameters, ..ToolSpec::new(name) }
}

fn tools_request(tool_choice: ToolChoice) -> GenerateRequest {
    let weather = json!({
        "properties": {
            "city": {"type": "string"},
            "days": {"$ref": "#/$defs/days"},
            "unit": {"enum": ["C", "F"]},
        },
        "required": ["city", "days"],
        "$defs": {"days": {"type": "integer", "minimum": 1, "maximum": 9}},
    });
    let bare = ToolSpec { parameters: None, ..tool("now", &json!({})) };
    GenerateRequest { tools: vec![tool("weather", &weather), bare], tool_choice, ..request() }
}

#[test]
fn nothing_is_enforced_unasked() {
    let model = model();
    for request in [request(), tools_request(ToolChoice::Auto), tools_request(ToolChoice::None)] {
        let prepared = model.prepare(&request).expect("a prompt");
        assert_eq!(model.grammar(&request, &prepared), Ok(None));
    }
}

#[test]
fn a_format_is_json_of_its_schema() {
    let object = GenerateRequest { format: Some(AnswerFormat::JsonObject), ..request() };
    let reader = Reader::new(model(), &object);
    assert_eq!(reader.read("{\"a\": [1, {}]}"), Whole);
    assert_eq!(reader.read("{\"a\": [1"), Beginning);
    assert_eq!(reader.read("[1]"), Outside);
    assert_eq!(reader.read("Sure: {"), Outside);
    let request = schema_request(&json!({"type": "array", "items": {"$ref": "#/$defs/n"},
        "$defs": {"n": {"type": "integer"}}}));
    let reader = Reader::new(model(), &request);
    assert_eq!(reader.read("[1,\n  2]"), Whole);
    assert_eq!(reader.read("[1.5"), Outside);
    // A model that has lost its way does not fill the answer with blanks.
    assert_eq!(reader.read(&format!("[{}", " ".repeat(128))), Beginning);
    assert_eq!(reader.read(&format!("[{}", " ".repeat(129))), Outside);
}

#[test]
fn a_regular_expression_describes_the_whole_answer() {
    let reader = |pattern: &str| {
        let format = Some(AnswerFormat::Regex(pattern.to_owned()));
        Reader::new(model(), &GenerateRequest { format, ..request() })
    };
    let date = reader(r"\d{4}/(0[1-9]|1[0-2])");
    assert_eq!((date.read("2026/11"), date.read("2026/1")), (Whole, Beginning));
    assert_eq!((date.read("2026/13"), date.read("On 2026")), (Outside, Outside));
    // Anchors say what is so anyway.
    let anchored = reader("^(yes|no)$");
    assert_eq!((anchored.read("yes"), anchored.read("yes, ")), (Whole, Outside));
    assert_eq!(reader(r"a\/b[/\\]").read("a/b\\"), Whole);
    assert_eq!(reader("a\nb").read("a\nb"), Whole);
    assert_eq!(reader("(?i)straße|//").read("STRAßE"), Whole);
    assert_eq!(reader("//.*").read("// \u{1F600}"), Whole);
    assert_eq!(reader("#x \"y\"").read("#x \"y\""), Whole);
    assert_eq!(reader("a*").read(""), Whole);
}

#[test]
fn a_choice_is_one_of_its_texts_word_for_word() {
    let texts = ["positive", "not \"so\" /good/\n", "très bien", "pos"];
    let format = Some(AnswerFormat::OneOf(texts.map(str::to_owned).to_vec()));
    let reader = Reader::new(model(), &GenerateRequest { format, ..request() });
    for text in texts {
        assert_eq!(reader.read(text), Whole, "{text}");
    }
    assert_eq!((reader.read("posi"), reader.read("poss")), (Beginning, Outside));
}

#[test]
fn thoughts_are_free_until_they_end() {
    let schema = json!({"type": "integer"});
    let open = GenerateRequest { reasoning: Reasoning::On, ..schema_request(&schema) };
    let reader = Reader::new(model(), &open);
    assert!(model().prepare(&open).unwrap().reasoning_open);
    assert_eq!(reader.read("Well, {\"three\"\n\n or 4?</think>\n\n3"), Whole);
    assert_eq!(reader.read("Well, 3"), Beginning, "the answer never ends in its thoughts");
    assert_eq!(reader.read("</think>3</think>"), Outside);
    // The letters of the end marker are no end, so that reader and engine agree where it is.
    assert_eq!(reader.read_as("a</think>", Specials::AsText), Outside);

    let forbidden = Reader::new(model(), &schema_request(&schema));
    assert_eq!(forbidden.read("<think>\nHm.\n</think>\n\n3"), Outside);
    assert_eq!(forbidden.read("3"), Whole);
    let text = GenerateRequest {
        prompt: Prompt::Text("1 + 2 =".to_owned()),
        reasoning: Reasoning::ModelDefault,
        ..schema_request(&schema)
    };
    assert_eq!(Reader::new(model(), &text).read("<think>"), Outside);
    // A model that opens its reasoning itself may, where nobody forbids it.
    let template = Template::new("{{ messages[0].content }}", SpecialTokens::default()).unwrap();
    let free = TextModel { template: Some(template), ..model() };
    let default = GenerateRequest { reasoning: Reasoning::ModelDefault, ..text };
    let prompt = Prompt::Chat(vec![Message::text(Role::User, "Hi")]);
    let reader = Reader::new(free, &GenerateRequest { prompt, ..default });
    assert_eq!(reader.read("<think>\nHm.\n</think>\n\n3"), Whole);
    assert_eq!(reader.read("3"), Whole);
    assert_eq!(reader.read("<think>3"), Beginning);
}

const WEATHER: &str =
    r#"{"name": "weather", "arguments": {"city": "Oslo </tool_call>", "days": 3}}"#;

#[test]
fn json_calls_follow_their_schemas() {
    // Requirement 106.
    let reader = Reader::new(model(), &tools_request(ToolChoice::Required));
    let call = |body: &str| format!("<tool_call>\n{body}\n</tool_call>");
    let weather = call(&WEATHER.replace(" </tool_call>", ""));
    let now = call(r#"{"name": "now", "arguments": {}}"#);
    assert_eq!(reader.read(&weather), Whole);
    assert_eq!(reader.read(&format!("{now}\n{weather}")), Whole);
    assert_eq!(reader.read(&format!("{now} and")), Outside);
    assert_eq!(reader.read("I think"), Outside);
    assert_eq!(reader.read(&call(r#"{"name": "later"#)), Outside);
    assert_eq!(reader.read(&weather.replace('3', "0")), Outside);
    assert_eq!(reader.read(&weather.replace(", \"days\": 3", "")), Outside);
    assert_eq!(reader.read(&now.replace("{}", "{\"a\": 1}")), Outside);

    let one = GenerateRequest { parallel_tool_calls: false, ..tools_request(ToolChoice::Required) };
    assert_eq!(Reader::new(model(), &one).read(&format!("{now}\n")), Outside);
    let named = tools_request(ToolChoice::Named("weather".to_owned()));
    let reader = Reader::new(model(), &named);
    assert_eq!(reader.read(&weather), Whole);
    assert_eq!(reader.read(&now), Outside);
    assert_eq!(reader.read(&format!("{weather}\n")), Outside, "a named call is one");
}

#[test]
fn xml_calls_follow_their_schemas() {
    let reader = Reader::new(xml_model(), &tools_request(ToolChoice::Required));
    let call = |parameters: &str| {
        format!("<tool_call>\n<function=weather>\n{parameters}</function>\n</tool_call>")
    };
    let city = "<parameter=city>\nNew\n York </parameter>x\n</parameter>\n";
    let city = city.replace(" </parameter>x", "");
    let days = "<parameter=days>\n3\n</parameter>\n";
    let unit = "<parameter=unit>\nF\n</parameter>\n";
    assert_eq!(reader.read(&call(&format!("{city}{days}"))), Whole);
    assert_eq!(reader.read(&call(&format!("{city}{days}{unit}"))), Whole);
    assert_eq!(reader.read(&call(&city)), Outside, "days are required");
    assert_eq!(reader.read(&call(&format!("{city}{}", days.replace('3', "10")))), Outside);
    assert_eq!(reader.read(&call(&format!("{city}{days}{}", unit.replace('F', "K")))), Outside);
    // Words that the reader would take for their own end.
    assert_eq!(reader.read(&call("<parameter=city>\na</parameter> b")), Outside);
    assert_eq!(reader.read("<tool_call>\n<function=now>\n</function>\n</tool_call>"), Whole);

    // What the grammar lets through is what the reader reads.
    let mut parser = ToolCallParser::new(tools_request(ToolChoice::Required).tools);
    let said = parser.push(&call(&format!("{city}{days}{unit}")));
    let pieces = said.iter().filter_map(|said| match said {
        Said::Arguments(delta) => Some(delta.as_str()),
        _ => None,
    });
    let arguments: Value = serde_json::from_str(&pieces.collect::<String>()).unwrap();
    assert_eq!(arguments, json!({"city": "New\n York", "days": 3, "unit": "F"}));
}

#[test]
fn strict_tools_bind_a_model_that_decides_itself() {
    let mut request = tools_request(ToolChoice::Auto);
    request.tools[0].strict = true;
    let reader = Reader::new(model(), &request);
    let call = format!("<tool_call>\n{}\n</tool_call>", WEATHER.replace(" </tool_call>", ""));
    assert_eq!(reader.read("Just words."), Whole);
    assert_eq!(reader.read(&format!("Let me look.\n{call}")), Whole);
    assert_eq!(reader.read(&call), Whole);
    assert_eq!(reader.read(&call.replace('3', "0")), Outside);
    assert_eq!(reader.read_as("<tool_call>", Specials::AsText), Outside);
}

#[test]
fn an_answer_with_a_format_may_call_instead() {
    let schema = schema_request(&json!({"type": "integer"}));
    let request = GenerateRequest { format: schema.format, ..tools_request(ToolChoice::Auto) };
    let reader = Reader::new(model(), &request);
    let now = "<tool_call>\n{\"name\": \"now\", \"arguments\": {}}\n</tool_call>";
    assert_eq!((reader.read("3"), reader.read(now)), (Whole, Whole));
    assert_eq!((reader.read("three"), reader.read(&format!("3{now}"))), (Outside, Outside));
    let must = GenerateRequest { tool_choice: ToolChoice::Required, ..request };
    assert_eq!(Reader::new(model(), &must).read("3"), Outside);
}

#[test]
fn what_cannot_be_enforced_is_refused_by_its_place() {
    // Requirement 106.
    let refused = |model: &TextModel, request: &GenerateRequest| {
        let prepared = model.prepare(request).expect("a prompt");
        match model.grammar(request, &prepared) {
            Err(TextError::Format { part, path, reason }) => (part, path, reason),
            other => panic!("{other:?}"),
        }
    };
    let never = schema_request(&json!({"items": {"not": {}}}));
    let (part, path, reason) = refused(&model(), &never);
    assert_eq!((part, path.as_str()), (FormatPart::Answer, "/items"));
    assert!(reason.contains("not"));
    for (pattern, word) in [("(?<stop>a)b", "`stop`"), ("a\\", "backslash"), ("a\\\n", "line")] {
        let format = Some(AnswerFormat::Regex(pattern.to_owned()));
        let (part, _, reason) = refused(&model(), &GenerateRequest { format, ..request() });
        assert_eq!(part, FormatPart::Answer);
        assert!(reason.contains(word), "{reason}");
    }
    let endless = GenerateRequest { ignore_eos: true, ..schema_request(&json!({})) };
    assert!(refused(&model(), &endless).2.contains("ignore_eos"));

    let with = |property: Value, strict: bool| {
        let tool = tool("t", &json!({"properties": {"a b": property}}));
        let tools = vec![ToolSpec { strict, ..tool }];
        GenerateRequest { tools, tool_choice: ToolChoice::Required, ..request() }
    };
    let (part, path, _) = refused(&model(), &with(json!({"not": {}}), false));
    assert_eq!((part, path.as_str()), (FormatPart::Tools, "t/properties/a b"));
    let (_, path, reason) =
        refused(&xml_model(), &with(json!({"type": "string", "pattern": "a"}), true));
    assert!(path == "t/properties/a b" && reason.contains("pattern"), "{path} {reason}");
    // Nobody has promised more than the call itself.
    let loose = with(json!({"type": "string", "pattern": "a", "format": "colour"}), false);
    Reader::new(xml_model(), &loose).matcher();
    Reader::new(model(), &loose).matcher();
}
