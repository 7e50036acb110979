//! What can go wrong between words and tokens, by what the caller can do about it.

/// The crate's one error.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TextError {
    /// The model's tokenizer cannot be used: the model must not be loaded.
    #[error("tokenizer: {0}")]
    BadTokenizer(String),
    /// The model's chat template does not compile: the model must not be loaded.
    #[error("chat template: {0}")]
    BadTemplate(String),
    /// Another file of the model cannot be read: the model must not be loaded.
    #[error("{file}: {reason}")]
    BadModelFile {
        /// The file's name in a model repository.
        file: &'static str,
        /// What is wrong with it.
        reason: String,
    },
    /// The model brings no chat template, so that it can only continue text.
    #[error("this model has no chat template: use a text prompt")]
    NoTemplate,
    /// The conversation holds an image and the model reads text only.
    #[error("this model does not support image input: {path} is an image")]
    ImageInput {
        /// Its place in the caller's request.
        path: String,
    },
    /// The template itself refused the conversation; its words are for the caller.
    #[error("the model's chat template refused the conversation: {0}")]
    Refused(String),
    /// The template failed on this conversation.
    #[error("the model's chat template failed: {0}")]
    RenderFailed(String),
    /// Rendering would take more work or room than any conversation that fits a model.
    #[error("the conversation is too large for the model's chat template")]
    TooLarge,
    /// A template argument has the name of something that the server passes itself.
    #[error("chat_template_kwargs.{0} is set by the server, leave it out")]
    ReservedArgument(String),
    /// The conversation is so strange that its text cannot be told from control tokens.
    #[error("the conversation uses every private-use character of Unicode")]
    NoFreeSentinel,
    /// The form that the answer must have is one that cannot be enforced.
    #[error("{path}: {reason}")]
    Format {
        /// What asks for it.
        part: FormatPart,
        /// Where in it, as a JSON pointer; of a tool, behind its name.
        path: String,
        /// What is wrong there, and what to do.
        reason: String,
    },
    /// A prompt of token ids holds one that the model does not know.
    #[error("token {token} is outside of the vocabulary of {vocab_size}")]
    UnknownToken {
        /// The id.
        token: u32,
        /// Ids below this exist.
        vocab_size: u32,
    },
    /// The prompt is longer than [`TextModel::max_prompt_tokens`](crate::TextModel).
    #[error("the prompt has at least {at_least} tokens, the limit is {limit}")]
    PromptTooLong {
        /// The prompt's tokens, counted until they were too many.
        at_least: u32,
        /// The most that a prompt may have.
        limit: u32,
    },
    /// The model's files do not say how it would make an embedding.
    #[error("this model makes no embeddings: {0}")]
    NoEmbeddings(String),
    /// There is nothing to continue.
    #[error("the prompt is empty")]
    EmptyPrompt,
}

/// What of a request asks for a form of the answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FormatPart {
    /// The format of the answer.
    Answer,
    /// The tools and whether they must be called.
    Tools,
}
