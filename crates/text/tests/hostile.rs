//! Templates and answers that mean harm, or nothing: none makes a parser panic.
#![allow(missing_docs, unreachable_pub)]

#[path = "../../../fuzz/inputs/text.rs"]
mod inputs;

use proptest::prelude::*;

/// Pieces of templates, which meet in all orders.
const JINJA: &[&str] = &[
    "{%- for message in messages -%}",
    "{% endfor %}",
    "{{ message.content }}",
    "{{ message['role'] | upper }}",
    "{% if tools %}",
    "{% elif loop.index0 > 1 %}",
    "{% else %}",
    "{% endif %}",
    "{% set x = namespace(a=1) %}",
    "{% set x.a = x.a + 1 %}",
    "{{ tools | tojson(indent=2) }}",
    "{% macro f(a, b=2) %}",
    "{{ f(1) }}",
    "{% endmacro %}",
    "{{ raise_exception('no') }}",
    "{{ messages[-1].content.split('<')[0].strip() }}",
    "{{ range(100000000) | list }}",
    "{{ 'a' * 100000000 }}",
    "{{ messages[::-1] }}",
    "{{ 1 / 0 }}{{ 9223372036854775807 + 1 }}",
    "{{ [[[[]]]] | sum }}",
    "{# note #}",
    "{% include 'x' %}",
    "{% block b %}{% endblock %}",
    "{{",
    "}}",
    "{%",
    "%}",
    "ü\u{0}",
];

const CALLS: &[&str] = &[
    "<tool_call>",
    "</tool_call>",
    "{\"name\": \"f\", \"arguments\": ",
    "{\"city\": \"é\", \"n\": 1e999}",
    "}",
    "[[[[",
    "<function=f>",
    "</function>",
    "<parameter=n>",
    "</parameter>",
    "\\ud800",
    "\"",
    "<",
    " \n",
    "0",
    "-",
    "\u{feff}",
];

/// Pieces in any order, with noise between some of them.
fn mixed(parts: &'static [&'static str]) -> impl Strategy<Value = Vec<u8>> {
    let piece = prop_oneof![
        8 => prop::sample::select(parts).prop_map(|part| part.as_bytes().to_vec()),
        1 => prop::collection::vec(any::<u8>(), 0..6),
        1 => "\\PC{0,6}".prop_map(String::into_bytes),
    ];
    prop::collection::vec(piece, 0..14).prop_map(|pieces| pieces.concat())
}

/// The template of the sample model with bytes changed.
fn changed_template() -> impl Strategy<Value = Vec<u8>> {
    let good = include_bytes!("../../../models/sprout/chat_template.jinja");
    let byte = prop_oneof![Just(b'%'), Just(b'{'), Just(b'}'), Just(b'\''), any::<u8>()];
    let changes = prop::collection::vec((any::<prop::sample::Index>(), byte), 1..4);
    changes.prop_map(|changes| {
        let mut bytes = good.to_vec();
        for (at, byte) in changes {
            let at = at.index(bytes.len());
            bytes[at] = byte;
        }
        bytes
    })
}

proptest! {
    // As many as by default; PROPTEST_CASES makes them more.
    #![proptest_config(ProptestConfig::default())]

    #[test]
    fn no_template_makes_its_reader_panic(template in mixed(JINJA)) {
        inputs::template(&template);
    }

    #[test]
    fn no_change_of_a_good_template_makes_its_reader_panic(template in changed_template()) {
        inputs::template(&template);
    }

    #[test]
    fn no_answer_makes_the_finder_of_calls_panic(answer in mixed(CALLS)) {
        inputs::tool_calls(&answer);
    }
}

/// Depth, which a parser may not take on its stack. Bad input 23.
#[test]
fn deep_nesting_overflows_no_stack() {
    let deep = |open: &str, close: &str, count: usize| {
        let mut text = open.repeat(count);
        text.push_str(&close.repeat(count));
        text
    };
    // Up to the longest template that is read, and beyond.
    for bytes in [200, 2_000, 20_000, 128 << 10, 1 << 20] {
        let chain = |first: &str, link: &str, last: &str| {
            let links = link.repeat((bytes - first.len() - last.len()) / link.len());
            inputs::template(format!("{first}{links}{last}").as_bytes());
        };
        let nest = |open: &str, close: &str| {
            let count = (bytes - 6) / (open.len() + close.len());
            inputs::template(format!("{{{{ {} }}}}", deep(open, close, count)).as_bytes());
        };
        nest("(", ")");
        nest("[", "]");
        nest("{1:", "}");
        inputs::template(deep("{% if 1 %}", "{% endif %}", bytes / 21).as_bytes());
        chain("{% if 1 %}", "{% elif 1 %}", "{% endif %}");
        // As long as a tag may be, and as many of them as there is room for.
        inputs::template(
            format!("{{{{ a{} }}}}", "+1".repeat(1020)).repeat(bytes / 2048).as_bytes(),
        );
        for prefix in ["not ", "-"] {
            chain("{{ ", prefix, "1 }}");
        }
        for suffix in ["|upper", "+1", "~1", "**1", ".b", "(1)", "[0]", " and 1", " if 1 else 2"] {
            chain("{{ a", suffix, " }}");
        }
    }
    for count in [50, 5_000] {
        let arguments = deep("[", "]", count);
        let call = format!("<tool_call>{{\"name\":\"f\",\"arguments\":{{\"list\":{arguments}}}}}");
        inputs::tool_calls(format!("{call}</tool_call>").as_bytes());
        let parameter = format!("<tool_call><function=f><parameter=list>{arguments}</parameter>");
        inputs::tool_calls(format!("{parameter}</function></tool_call>").as_bytes());
    }
}
