mod late_tools;
mod parse;
mod project;
