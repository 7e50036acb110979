mod parse;
mod project;
