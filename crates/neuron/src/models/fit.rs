//! Whether what was loaded is what was asked for.

use control::LoadRequest;
use engine::{EngineInfo, EngineSpec};
use model::Recipe;

use crate::child::link::{LoadCode, LoadDetails, LoadFailure};
use crate::source;
use crate::source::assets::Assets;

/// What a directory's weights are is known only now. (A GGUF file was chosen by its name.)
pub(super) fn wrong_format(
    spec: &EngineSpec,
    request: &LoadRequest,
    info: &EngineInfo,
) -> Option<LoadFailure> {
    let wanted = request.quant.as_deref()?;
    let base = |name| Recipe::from_name(name).map(Recipe::base);
    let same = base(wanted).is_some_and(|wanted| base(&info.quant) == Some(wanted));
    if !spec.source.is_dir() || same || info.quant.eq_ignore_ascii_case(wanted) {
        return None;
    }
    let message = format!("the source holds `{}`, not `{}`", info.quant, source::clip(wanted));
    let (available, nearest) = (vec![info.quant.clone()], Some(info.quant.clone()));
    let details = LoadDetails::Quant { available, nearest };
    Some(LoadFailure::new(LoadCode::QuantNotFound, message).with(details))
}

/// A tokenizer that knows more tokens than the model has rows for (bad file 123).
pub(super) fn too_many_tokens(assets: &Assets, info: &EngineInfo) -> Option<LoadFailure> {
    let (tokens, rows) = (assets.text.tokenizer.vocab_size(), info.vocab_size);
    if tokens <= rows {
        return None;
    }
    let reason = format!("has ids up to {}, and the model has {rows} rows", tokens - 1);
    let (file, item) = ("tokenizer.json".to_owned(), "vocabulary".to_owned());
    let message = format!("{file}: {item}: {reason}");
    let details = LoadDetails::File { file, item, reason };
    Some(LoadFailure::new(LoadCode::BadModelFile, message).with(details))
}

/// The first setting that a caller states and that is not the one in force.
pub(super) fn difference(
    current: &EngineSpec,
    asked: &EngineSpec,
    request: &LoadRequest,
) -> Option<&'static str> {
    if request.source.is_some() && current.source != asked.source {
        return Some("source");
    }
    if request.context.is_some() && current.context != asked.context {
        return Some("context");
    }
    if request.max_running.is_some() && current.max_running != asked.max_running {
        return Some("max_running");
    }
    if request.devices.as_ref().is_some_and(|cards| !cards.is_empty())
        && current.device != asked.device
    {
        return Some("devices");
    }
    if request.tensor_parallel.is_some() && current.world_size != asked.world_size {
        return Some("tensor_parallel");
    }
    let same = (&current.source, &current.quant) == (&asked.source, &asked.quant);
    (request.quant.is_some() && !same).then_some("quant")
}

#[cfg(test)]
mod tests {
    use engine::Device;

    use super::*;

    #[test]
    fn only_what_a_caller_states_can_differ() {
        let current = EngineSpec { device: Device::Cuda(0), ..EngineSpec::new("/m") };
        let asked = EngineSpec { device: Device::Cuda(1), context: Some(7), ..current.clone() };
        let request = LoadRequest::default();
        assert_eq!(difference(&current, &asked, &request), None);
        let with = |change: fn(&mut LoadRequest)| {
            let mut request = LoadRequest::default();
            change(&mut request);
            difference(&current, &asked, &request)
        };
        assert_eq!(with(|it| it.devices = Some(vec![1])), Some("devices"));
        assert_eq!(with(|it| it.devices = Some(vec![])), None);
        assert_eq!(with(|it| it.context = Some(7)), Some("context"));
        assert_eq!(with(|it| it.source = Some("/m".into())), None);
    }
}
