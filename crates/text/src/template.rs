//! Chat templates, as Hugging Face renders them.

use std::collections::BTreeMap;
use std::io;
use std::thread;

use dialog::{Json, Message, ToolSpec};
use minijinja::syntax::SyntaxConfig;
use minijinja::value::{Kwargs, Serde};
use minijinja::{AutoEscape, Environment, Error, ErrorKind, Value};

use crate::conversation::Conversation;
use crate::template_limits::{self, LONGEST_SOURCE_BYTES};
use crate::tool_call::CallForm;
use crate::{TextError, python_json};

/// Instructions and 64-byte pieces that one rendering may cost: seconds at worst, where a
/// conversation of ten thousand turns takes a fifth of it.
const FUEL: u64 = 20_000_000;
/// Far above what any context holds.
const LONGEST_OUTPUT_BYTES: usize = 64 << 20;
const DEEPEST_RECURSION: usize = 100;
/// The compiler goes down a level with every link of a chain, and so at most once a byte; it was
/// seen to take half a kilobyte for each.
const COMPILER_STACK_BYTES: usize = LONGEST_SOURCE_BYTES << 10;
const NAME: &str = "chat_template";

/// Variables that the server passes itself.
const RESERVED: [&str; 9] = [
    "messages",
    "tools",
    "documents",
    "add_generation_prompt",
    "enable_thinking",
    "bos_token",
    "eos_token",
    "pad_token",
    "unk_token",
];

/// The spelling of a model's special tokens, for the template's variables of these names.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SpecialTokens {
    /// `bos_token`.
    pub bos: Option<String>,
    /// `eos_token`.
    pub eos: Option<String>,
    /// `pad_token`.
    pub pad: Option<String>,
    /// `unk_token`.
    pub unk: Option<String>,
}

/// What varies from rendering to rendering, apart from the conversation.
#[derive(Clone, Copy, Debug, Default)]
pub struct RenderOptions<'a> {
    /// Ends the prompt where the assistant's answer begins.
    pub add_generation_prompt: bool,
    /// `None` leaves the variable undefined: the template's own default.
    pub enable_thinking: Option<bool>,
    /// Extra variables, a JSON object.
    pub arguments: Option<&'a Json>,
}

/// A compiled chat template.
#[derive(Debug)]
pub struct Template {
    environment: Environment<'static>,
    call_form: CallForm,
    tells_errors: bool,
    special_tokens: BTreeMap<&'static str, String>,
}

impl Template {
    /// Compiles a template.
    ///
    /// # Errors
    ///
    /// [`TextError::BadTemplate`] with the line of the mistake, or if it is too long.
    pub fn new(source: &str, special_tokens: SpecialTokens) -> Result<Self, TextError> {
        let mut environment = Environment::new();
        let bad = |error: Error| TextError::BadTemplate(error.to_string());
        let syntax = SyntaxConfig::builder().trim_blocks(true).lstrip_blocks(true).build();
        environment.set_syntax(syntax.map_err(bad)?);
        environment.set_auto_escape_callback(|_| AutoEscape::None);
        environment.set_fuel(Some(FUEL));
        environment.set_recursion_limit(DEEPEST_RECURSION);
        environment
            .set_unknown_method_callback(minijinja_contrib::pycompat::unknown_method_callback);
        environment.set_formatter(|out, state, value| match python_json::float_text(value) {
            Some(text) => out.write_str(&text).map_err(Error::from),
            None => minijinja::escape_formatter(out, state, value),
        });
        environment.add_filter("string", |value: &Value| {
            python_json::float_text(value).unwrap_or_else(|| value.to_string())
        });
        // Python's `None` is not iterable; the engine's own test says that it is.
        environment
            .add_test("iterable", |value: &Value| !value.is_none() && value.try_iter().is_ok());
        environment.add_filter("tojson", tojson);
        environment.add_function("raise_exception", raise_exception);
        compile(&mut environment, source)?;
        let SpecialTokens { bos, eos, pad, unk } = special_tokens;
        let named =
            [("bos_token", bos), ("eos_token", eos), ("pad_token", pad), ("unk_token", unk)];
        let known = named.into_iter().filter_map(|(name, token)| Some((name, token?)));
        let call_form = CallForm::of_template(source);
        let tells_errors = source.contains("is_error");
        Ok(Self { environment, call_form, tells_errors, special_tokens: known.collect() })
    }

    /// How the template teaches the model to write its calls.
    pub fn call_form(&self) -> CallForm {
        self.call_form
    }

    /// Whether the template has a place for a tool's result that is an error.
    pub(crate) fn tells_errors(&self) -> bool {
        self.tells_errors
    }

    /// Renders a conversation; system messages become one, at the front.
    ///
    /// # Errors
    ///
    /// [`TextError::Refused`] when the template calls `raise_exception`, and the other reasons
    /// why a prompt cannot be had. A failure is never answered with a prompt without the tools
    /// (requirement 36).
    pub fn render(
        &self,
        messages: &[Message],
        tools: &[ToolSpec],
        options: &RenderOptions<'_>,
    ) -> Result<String, TextError> {
        let conversation =
            Conversation::new(messages, tools, options.arguments, self.tells_errors)?;
        self.render_conversation(&conversation, options)
    }

    /// Renders `conversation`, whose arguments stand for those of `options`.
    pub(crate) fn render_conversation(
        &self,
        conversation: &Conversation,
        options: &RenderOptions<'_>,
    ) -> Result<String, TextError> {
        let mut variables: BTreeMap<&str, Value> = BTreeMap::new();
        for (name, value) in &conversation.arguments {
            if RESERVED.contains(&name.as_str()) {
                return Err(TextError::ReservedArgument(name.clone()));
            }
            variables.insert(name, Value::from(Serde(value)));
        }
        for (name, token) in &self.special_tokens {
            variables.insert(name, Value::from(token.as_str()));
        }
        let tools = (!conversation.tools.is_empty()).then_some(&conversation.tools);
        variables.insert("tools", Value::from(Serde(tools)));
        variables.insert("messages", Value::from(Serde(&conversation.messages)));
        variables.insert("documents", Value::from(()));
        variables.insert("add_generation_prompt", Value::from(options.add_generation_prompt));
        if let Some(enable_thinking) = options.enable_thinking {
            variables.insert("enable_thinking", Value::from(enable_thinking));
        }
        let template = self.environment.get_template(NAME).map_err(|error| failure(&error))?;
        let mut output = Output(Vec::new());
        template
            .render_captured_to(Value::from_pairs(variables), &mut output)
            .map_err(|error| failure(&error))?;
        String::from_utf8(output.0).map_err(|error| TextError::RenderFailed(error.to_string()))
    }
}

/// Adds the template, on a stack that no template of this length exhausts: a model file must not
/// be able to end the process that reads it.
fn compile(environment: &mut Environment<'static>, source: &str) -> Result<(), TextError> {
    let bad = |reason: String| TextError::BadTemplate(reason);
    template_limits::check(source)?;
    thread::scope(|scope| {
        let compiler = thread::Builder::new().stack_size(COMPILER_STACK_BYTES);
        let compiled = compiler
            .spawn_scoped(scope, || environment.add_template_owned(NAME, source.to_owned()));
        let compiled =
            compiled.map_err(|error| bad(format!("no thread to compile it: {error}")))?;
        match compiled.join() {
            Ok(compiled) => compiled.map_err(|error| bad(error.to_string())),
            Err(_) => Err(bad("it made its compiler panic".to_owned())),
        }
    })
}

/// A buffer that takes no more than any prompt needs.
struct Output(Vec<u8>);

impl io::Write for Output {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if self.0.len() + bytes.len() > LONGEST_OUTPUT_BYTES {
            return Err(io::Error::from(io::ErrorKind::FileTooLarge));
        }
        self.0.extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// What a template said with `raise_exception`, told from the engine's own errors by its type.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
struct Raised(String);

fn raise_exception(message: String) -> Result<Value, Error> {
    let error = Error::new(ErrorKind::InvalidOperation, "raised by the template");
    Err(error.with_source(Raised(message)))
}

fn failure(error: &Error) -> TextError {
    let mut cause: Option<&(dyn std::error::Error + 'static)> = Some(error);
    while let Some(error) = cause {
        if let Some(Raised(message)) = error.downcast_ref() {
            return TextError::Refused(message.clone());
        }
        cause = error.source();
    }
    match error.kind() {
        ErrorKind::OutOfFuel | ErrorKind::WriteFailure => TextError::TooLarge,
        _ => TextError::RenderFailed(error.to_string()),
    }
}

#[expect(clippy::needless_pass_by_value, reason = "the engine passes keyword arguments so")]
fn tojson(value: &Value, options: Kwargs) -> Result<String, Error> {
    let separators: Option<Vec<String>> = options.get("separators")?;
    let separators = match separators.as_deref() {
        None => None,
        Some([item, key]) => Some((item.clone(), key.clone())),
        Some(_) => {
            let message = "separators must be a pair of strings";
            return Err(Error::new(ErrorKind::InvalidOperation, message));
        }
    };
    let style = python_json::Style {
        ensure_ascii: options.get::<Option<bool>>("ensure_ascii")?.unwrap_or(false),
        indent: options.get("indent")?,
        separators,
        sort_keys: options.get::<Option<bool>>("sort_keys")?.unwrap_or(false),
    };
    options.assert_all_used()?;
    python_json::dumps(value, &style)
}
