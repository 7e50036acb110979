//! Checkpoints that are quantised while they are loaded.
//!
//! Such a source is in everything the GGUF file that a conversion would have written: the same
//! functions make the same bytes, one matrix at a time, when a layer asks for it.

use std::collections::BTreeMap;

use kernels::{Weight, WeightType};

use super::source::Files;
use super::{Source, TensorName};
use crate::convert::{config_of_file, encoded};
use crate::{Error, Recipe};

/// What stands between a checkpoint and those who ask for its matrices.
pub(super) struct Quantised {
    source: Source,
    recipe: Recipe,
    threads: usize,
}

impl Quantised {
    pub(super) fn source(&self) -> &Source {
        &self.source
    }

    pub(super) fn matrix(&self, name: TensorName) -> Result<Weight, Error> {
        encoded(&self.source, name, self.format(name), self.threads)
    }

    pub(super) fn format(&self, name: TensorName) -> WeightType {
        self.recipe.format_of(name, self.source.config())
    }
}

impl Source {
    /// The same model in the formats of `recipe`, made by so many threads as matrices are asked
    /// for; nothing changes if that is how the files hold it.
    ///
    /// # Errors
    ///
    /// `Refused` for a recipe that cannot be followed; `Requantised` if the files hold quantised
    /// matrices of another kind: what was lost once is not rounded a second time.
    pub fn quantised(self, recipe: Recipe, threads: usize) -> Result<Self, Error> {
        if self.mostly()? == recipe.base() {
            return Ok(self);
        }
        if !recipe.is_possible() {
            return Err(Error::refused(self.path(), format!("{recipe} cannot be written")));
        }
        for name in TensorName::all(self.config()) {
            let found = self.tensor(name)?.ty;
            if !found.is_float() {
                let (file, wanted) = (self.path().to_path_buf(), recipe.name());
                return Err(Error::Requantised { file, found, wanted });
            }
        }
        let (config, path) = (config_of_file(self.config()), self.path().to_path_buf());
        let warnings = self.warnings().to_vec();
        let files = Files::Quantised(Box::new(Quantised { source: self, recipe, threads }));
        Ok(Self { config, path, files, warnings })
    }

    /// What the weights' format is called: a recipe, or what holds most of the bytes.
    ///
    /// # Errors
    ///
    /// As for `tensor`.
    pub fn format_name(&self) -> Result<&'static str, Error> {
        match &self.files {
            Files::Quantised(quantised) => Ok(quantised.recipe.name()),
            _ => Ok(self.mostly()?.name()),
        }
    }

    /// The format that holds most of the bytes in the files.
    fn mostly(&self) -> Result<WeightType, Error> {
        let mut bytes = BTreeMap::new();
        for name in TensorName::all(self.config()) {
            let tensor = self.tensor(name)?;
            *bytes.entry(tensor.ty).or_insert(0) += tensor.bytes.len();
        }
        let most = bytes.into_iter().max_by_key(|(_, bytes)| *bytes);
        Ok(most.map_or(WeightType::F32, |(ty, _)| ty))
    }
}

#[cfg(test)]
mod tests {
    use std::path::{Path, PathBuf};

    use super::*;
    use crate::config::LayerKind;
    use crate::{ModelConfig, Role, convert};

    fn fixture(name: &str) -> PathBuf {
        [env!("CARGO_MANIFEST_DIR"), "tests/fixtures", name].iter().collect()
    }

    /// Every matrix and vector that layers ask for.
    fn asked_for(config: &ModelConfig) -> Vec<TensorName> {
        use Role as R;
        let mut names = vec![TensorName::Embedding, TensorName::OutputNorm];
        for (layer, kind) in config.layers.iter().enumerate() {
            let mut roles = vec![R::AttnNorm, R::PostNorm];
            roles.extend(match kind {
                LayerKind::FullAttention => vec![R::Q, R::K, R::V, R::O, R::QNorm, R::KNorm],
                LayerKind::LinearAttention => vec![
                    R::DeltaQkv,
                    R::DeltaGate,
                    R::DeltaBeta,
                    R::DeltaAlpha,
                    R::DeltaConv,
                    R::DeltaDtBias,
                    R::DeltaA,
                    R::DeltaNorm,
                    R::DeltaOut,
                ],
            });
            match &config.moe {
                None => roles.extend([R::FfnGate, R::FfnUp, R::FfnDown]),
                Some(moe) => {
                    roles.push(R::Router);
                    let expert = |e| [R::ExpertGate(e), R::ExpertUp(e), R::ExpertDown(e)];
                    roles.extend((0..moe.experts).flat_map(expert));
                    if moe.shared_ffn.is_some() {
                        roles.extend([R::SharedMix, R::SharedGate, R::SharedUp, R::SharedDown]);
                    }
                }
            }
            names.extend(roles.into_iter().map(|role| TensorName::Layer(layer, role)));
        }
        if !config.tied {
            names.push(TensorName::Output);
        }
        names
    }

    #[track_caller]
    fn assert_same(converted: &Source, quantised: &Source, what: &str) {
        assert_eq!(converted.config(), quantised.config(), "{what}");
        for name in asked_for(quantised.config()) {
            let (file, made) = (converted.matrix(name).unwrap(), quantised.matrix(name).unwrap());
            assert_eq!((file.ty, file.rows, file.cols), (made.ty, made.rows, made.cols), "{name}");
            assert!(file.bytes[..] == made.bytes[..], "{what}: {name} differs");
            assert_eq!(quantised.format(name).unwrap(), file.ty);
            assert_eq!(converted.format(name).unwrap(), file.ty);
        }
    }

    #[test]
    fn quantising_at_load_equals_converting_first_bit_for_bit() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("model.gguf");
        let models = ["qwen3", "qwen3_moe", "qwen3_5", "qwen3_5_moe", "qwen3_next"];
        let recipes = [Recipe::Q4_K_M, WeightType::Q8_0.into(), WeightType::F16.into()];
        for model in models {
            for recipe in recipes {
                convert(&fixture(model), &path, recipe).unwrap();
                let converted = Source::open(&path).unwrap();
                let source = Source::open(&fixture(model)).unwrap();
                let quantised = source.quantised(recipe, 2).unwrap();
                assert_eq!(quantised.format_name().unwrap(), recipe.name());
                assert_same(&converted, &quantised, &format!("{model} in {recipe}"));
            }
        }
    }

    /// The K-quants' blocks are wider than the fixtures' rows.
    #[test]
    fn a_model_with_wide_rows_is_quantised_to_blocks_of_256() {
        let directory = tempfile::tempdir().unwrap();
        let checkpoint = crate::load::wide::write(directory.path());
        let path = directory.path().join("model.gguf");
        for recipe in [Recipe::Q4_K_M, Recipe::Q5_K_M, WeightType::Q6_K.into()] {
            convert(&checkpoint, &path, recipe).unwrap();
            let converted = Source::open(&path).unwrap();
            let quantised = Source::open(&checkpoint).unwrap().quantised(recipe, 3).unwrap();
            assert_same(&converted, &quantised, recipe.name());
            let up = quantised.format(TensorName::Layer(1, Role::FfnUp)).unwrap();
            assert_eq!(up, recipe.base());
            // From a GGUF file of floats too.
            let float = directory.path().join("float.gguf");
            convert(&checkpoint, &float, WeightType::BF16).unwrap();
            let quantised = Source::open(&float).unwrap().quantised(recipe, 1).unwrap();
            assert_same(&converted, &quantised, &format!("{recipe} from a float file"));
        }
    }

    #[test]
    fn what_is_quantised_stays_as_it_is_or_is_refused() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("model.gguf");
        convert(&fixture("qwen3"), &path, WeightType::Q8_0).unwrap();
        let same = Source::open(&path).unwrap().quantised(WeightType::Q8_0.into(), 1).unwrap();
        assert_eq!(same.format_name().unwrap(), "Q8_0");
        assert!(same.tensor(TensorName::Embedding).unwrap().ty == WeightType::Q8_0);
        let error = Source::open(&path).unwrap().quantised(Recipe::Q4_K_M, 1).err().unwrap();
        let Error::Requantised { found, wanted, .. } = &error else { panic!("{error}") };
        assert_eq!((*found, *wanted), (WeightType::Q8_0, "Q4_K_M"));
        let only_read = WeightType::IQ4_NL.into();
        let error = Source::open(&fixture("qwen3")).unwrap().quantised(only_read, 1).err().unwrap();
        assert!(error.to_string().ends_with("IQ4_NL cannot be written"), "{error}");
    }

    // Bad file 111
    #[test]
    fn weights_that_are_no_numbers_are_refused_by_name() {
        let directory = tempfile::tempdir().unwrap();
        for entry in std::fs::read_dir(fixture("qwen3")).unwrap() {
            let path = entry.unwrap().path();
            std::fs::copy(&path, directory.path().join(path.file_name().unwrap())).unwrap();
        }
        let file = directory.path().join("model.safetensors");
        let mut bytes = std::fs::read(&file).unwrap();
        let last = bytes.len() - 2;
        bytes[last..].copy_from_slice(&[0xC0, 0x7F]);
        std::fs::write(&file, bytes).unwrap();
        let open = |path: &Path| Source::open(path).unwrap();
        let quantised = open(directory.path()).quantised(WeightType::Q8_0.into(), 2).unwrap();
        let found: Vec<_> = asked_for(quantised.config())
            .into_iter()
            .filter_map(|name| quantised.matrix(name).err())
            .map(|error| error.to_string())
            .collect();
        assert_eq!(found.len(), 1, "{found:?}");
        assert!(found[0].contains("tensor `") && found[0].contains(" is NaN"), "{}", found[0]);
    }
}
