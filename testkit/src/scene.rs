//! What a scripted engine says in words, chosen by what it is asked.

use std::collections::HashMap;

use engine::{TokenRequest, Vocabulary};
use serde::{Deserialize, Serialize};

/// One answer, and the prompts that it is the answer to.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Scene {
    /// Texts that all stand in the prompt, wherever.
    pub when: Vec<String>,
    /// Texts of which none does.
    pub unless: Vec<String>,
    /// The answer with its markers, as a model writes them; a stop token follows.
    pub say: String,
    /// The engine faults once it has said this many tokens.
    pub fault_after: Option<u32>,
}

impl Scene {
    fn fits(&self, prompt: &str) -> bool {
        self.when.iter().all(|text| prompt.contains(text.as_str()))
            && !self.unless.iter().any(|text| prompt.contains(text.as_str()))
    }
}

/// The first scene that fits a prompt, and its words in tokens.
pub(crate) fn choose<'a>(
    scenes: &'a [Scene],
    spelling: &Spelling,
    request: &TokenRequest,
) -> Option<(&'a Scene, Vec<u32>)> {
    if scenes.is_empty() {
        return None;
    }
    let prompt = spelling.text(&request.prompt);
    let scene = scenes.iter().find(|scene| scene.fits(&prompt))?;
    let mut words = spelling.tokens(&scene.say);
    words.extend(request.stop_tokens.first());
    Some((scene, words))
}

/// Text <-> tokens, by what the tokens spell. It merges more than a tokenizer would.
#[derive(Debug, Default)]
pub(crate) struct Spelling {
    vocabulary: Vocabulary,
    ids: HashMap<Vec<u8>, u32>,
    longest: usize,
}

impl Spelling {
    pub(crate) fn new(vocabulary: Vocabulary) -> Self {
        let spelled = vocabulary.bytes.iter().zip(0..).filter(|(bytes, _)| !bytes.is_empty());
        let ids = spelled.map(|(bytes, id)| (bytes.clone(), id)).collect();
        let longest = vocabulary.bytes.iter().map(Vec::len).max().unwrap_or(0);
        Self { vocabulary, ids, longest }
    }

    fn text(&self, tokens: &[u32]) -> String {
        let spell = |token: &u32| self.vocabulary.bytes.get(*token as usize);
        let bytes: Vec<u8> = tokens.iter().filter_map(spell).flatten().copied().collect();
        String::from_utf8_lossy(&bytes).into_owned()
    }

    /// At each place the longest token that fits.
    fn tokens(&self, text: &str) -> Vec<u32> {
        let mut rest = text.as_bytes();
        let mut tokens = Vec::new();
        while !rest.is_empty() {
            let lengths = (1..=self.longest.min(rest.len())).rev();
            let mut found =
                lengths.filter_map(|length| Some((length, self.ids.get(&rest[..length])?)));
            let (length, id) = found.next().expect("a byte-level vocabulary spells every byte");
            tokens.push(*id);
            rest = &rest[length..];
        }
        tokens
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn spelling() -> Spelling {
        let bytes = (0..=255).map(|byte| vec![byte]);
        let longer = [&b"<think>"[..], b"la", b"lala"].map(<[u8]>::to_vec);
        Spelling::new(Vocabulary { bytes: bytes.chain(longer).collect(), specials: vec![] })
    }

    #[test]
    fn words_become_the_longest_tokens_and_come_back() {
        let tokens = spelling().tokens("lalala<think>é");
        assert_eq!(tokens, [258, 257, 256, 0xc3, 0xa9]);
        assert_eq!(spelling().text(&tokens), "lalala<think>é");
    }

    #[test]
    fn the_first_fitting_scene_is_played_and_ends_with_a_stop_token() {
        let scene = |when: &[&str], unless: &[&str], say: &str| Scene {
            when: when.iter().map(|&text| text.to_owned()).collect(),
            unless: unless.iter().map(|&text| text.to_owned()).collect(),
            say: say.to_owned(),
            fault_after: None,
        };
        let scenes = [scene(&["a", "b"], &["c"], "1"), scene(&["a"], &[], "2")];
        let said = |prompt: &str| {
            let prompt = prompt.bytes().map(u32::from).collect();
            let request = TokenRequest { stop_tokens: vec![7], ..TokenRequest::new(1, prompt, 9) };
            choose(&scenes, &spelling(), &request).map(|(_, words)| words)
        };
        assert_eq!(said("xbxa"), Some(vec![u32::from(b'1'), 7]));
        assert_eq!(said("abc"), Some(vec![u32::from(b'2'), 7]));
        assert_eq!(said("b"), None);
    }
}
