//! Blocks of content -> parts.

use dialog::Part;
use serde_json::value::RawValue;

use crate::WireError;
use crate::fields::{self, Object};
use crate::tools::Offer;

/// Content that is a string or an array of blocks, each block with its path.
pub(super) enum Content<'a> {
    Text(String),
    Blocks(Vec<Object<'a>>),
}

/// The field as content; absent is no blocks.
pub(super) fn content<'a>(parent: &Object<'a>, name: &str) -> Result<Content<'a>, WireError> {
    match parent.raw(name).and_then(|raw| raw.get().bytes().next()) {
        None => Ok(Content::Blocks(Vec::new())),
        Some(b'"') => Ok(Content::Text(parent.text(name)?.unwrap_or_default())),
        Some(b'[') => {
            let raws = parent.array(name)?.unwrap_or_default();
            let path = parent.at(name);
            let read = |(index, raw): (usize, &'a RawValue)| {
                Object::from_value(raw, format!("{path}[{index}]"))
            };
            Ok(Content::Blocks(raws.into_iter().enumerate().map(read).collect::<Result<_, _>>()?))
        }
        Some(_) => Err(parent.wrong(name, "must be a string or an array of blocks")),
    }
}

/// The `type` that every block has.
pub(super) fn kind(block: &Object<'_>) -> Result<String, WireError> {
    block.text("type")?.ok_or_else(|| block.missing("type"))
}

/// The words of a text block.
pub(super) fn text(block: &Object<'_>) -> Result<String, WireError> {
    block.text("text")?.ok_or_else(|| block.missing("text"))
}

/// A block by which a user shows something; `None` for a type that nobody here knows.
pub(super) fn shown(block: &Object<'_>) -> Result<Option<Part>, WireError> {
    match kind(block)?.as_str() {
        "text" => Ok(Some(Part::Text(text(block)?))),
        "image" => Ok(Some(image(block)?)),
        "document" => document(block).map(Some),
        _ => Ok(None),
    }
}

/// What a tool gave back. A block that nobody here knows is shown as the JSON that it is, so that
/// nothing of a result is lost.
/// A tool that was found is told in place of its name.
pub(super) fn result(parent: &Object<'_>, offer: &Offer) -> Result<Vec<Part>, WireError> {
    let blocks = match content(parent, "content")? {
        Content::Text(text) => return Ok(vec![Part::Text(text)]),
        Content::Blocks(blocks) => blocks,
    };
    let raws = parent.array("content")?.unwrap_or_default();
    let read = |(block, raw): (&Object<'_>, &RawValue)| {
        if kind(block)? == "tool_reference"
            && let Some(name) = block.text("tool_name")?
            && offer.defers(&name)
        {
            return Ok(Part::Tool(name));
        }
        Ok(shown(block)?.unwrap_or_else(|| Part::Text(raw.get().to_owned())))
    };
    blocks.iter().zip(raws).map(read).collect()
}

fn image(block: &Object<'_>) -> Result<Part, WireError> {
    let source = block.object("source")?.ok_or_else(|| block.missing("source"))?;
    let field = |name: &str| source.text(name)?.ok_or_else(|| source.missing(name));
    let path = block.path().to_owned();
    match source.text("type")?.as_deref() {
        None => Err(source.missing("type")),
        Some("base64") => {
            let (media_type, data) = (field("media_type")?, field("data")?);
            Ok(Part::Image { url: format!("data:{media_type};base64,{data}"), path })
        }
        Some("url") => Ok(Part::Image { url: field("url")?, path }),
        Some(_) => Err(source.wrong("type", "must be base64 or url")),
    }
}

/// Documents are served where they are text (requirement 33: never dropped in silence).
fn document(block: &Object<'_>) -> Result<Part, WireError> {
    let source = block.object("source")?.ok_or_else(|| block.missing("source"))?;
    match source.text("type")?.as_deref() {
        None => Err(source.missing("type")),
        Some("text") => Ok(Part::Text(source.text("data")?.ok_or_else(|| source.missing("data"))?)),
        Some(_) => Err(source.unsupported("type", "documents are served as text only")),
    }
}

/// An error for a block whose type nobody here knows.
pub(super) fn unknown(block: &Object<'_>) -> WireError {
    let expected = "must be text, image, document or tool_result".to_owned();
    match block.raw("type") {
        Some(raw) => fields::invalid(block.at("type"), expected, raw),
        None => block.missing("type"),
    }
}
