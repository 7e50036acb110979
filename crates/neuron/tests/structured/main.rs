//! Answers in a form, from a model that has no idea of it: its weights are random, so that
//! whatever is right about them is the masks' doing.

mod generated;
mod known;
mod runner;

use engine::End;
use runner::{Outcome, Runner};
use serde_json::Value;

/// Schemas that the generator makes.
const GENERATED: u64 = 300;

fn schemas() -> Vec<Value> {
    let mut schemas = known::schemas();
    schemas.extend((0..GENERATED).map(generated::schema));
    schemas
}

/// Requirement 106: every complete answer is one that its schema allows. An answer that was cut
/// off at its length is the beginning of one.
#[test]
fn complete_answers_are_valid() {
    let schemas = schemas();
    let outcomes = Runner::new().answers(&schemas, true);
    assert_eq!(outcomes.len(), schemas.len());
    let mut complete = 0;
    for (schema, Outcome { text, end }) in schemas.iter().zip(&outcomes) {
        match end {
            End::Stop => {
                complete += 1;
                if let Err(reason) = runner::validate(schema, text) {
                    panic!("{reason}\nschema: {schema}\nanswer: {text}");
                }
            }
            End::Length => assert!(runner::is_beginning(text), "schema: {schema}\nanswer: {text}"),
            end => panic!("{end:?}\nschema: {schema}\nanswer: {text}"),
        }
    }
    assert!(complete * 20 >= schemas.len() * 19, "{complete} of {} are complete", schemas.len());
}

/// The test above would notice if masks were ignored.
#[test]
fn without_masks_the_check_fails() {
    let schemas = &schemas()[..40];
    let outcomes = Runner::new().answers(schemas, false);
    let is_good = |(schema, outcome): (&Value, &Outcome)| match outcome.end {
        End::Stop => runner::validate(schema, &outcome.text).is_ok(),
        _ => runner::is_beginning(&outcome.text),
    };
    // An opening quote alone is the beginning of something.
    let good = schemas.iter().zip(&outcomes).filter(|pair| is_good(*pair)).count();
    assert!(good * 10 < schemas.len(), "{good} of {} pass", schemas.len());
}

/// The grammar survives preemption: with too few blocks for all, the answers are the same.
#[test]
fn preemption_changes_no_answer() {
    let schemas = &schemas()[..24];
    let roomy = Runner::new().answers(schemas, true);
    let tight = Runner::with_blocks(80).answers(schemas, true);
    let text = |outcomes: &[Outcome]| -> Vec<String> {
        outcomes.iter().map(|outcome| outcome.text.clone()).collect()
    };
    assert_eq!(text(&tight), text(&roomy));
}
