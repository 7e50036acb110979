//! Which format each tensor of a quantised model gets.

use std::fmt;

use kernels::quant::{WeightType, encoder};

use crate::{ModelConfig, Role, TensorName};

/// What people call the format of a whole model.
///
/// The mixtures spend bits where errors hurt most, as files of these names do elsewhere: the matrix
/// that makes the logits, and values and feed-forward outputs of half of the layers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(non_camel_case_types)] // The names are those that users write.
pub enum Recipe {
    /// One format for all matrices, but for those that `format_of` excepts.
    Plain(WeightType),
    /// `Q4_K` with some `Q6_K`, and `Q5_K` in linear layers.
    Q4_K_M,
    /// `Q5_K` with some `Q6_K`.
    Q5_K_M,
}

impl From<WeightType> for Recipe {
    fn from(ty: WeightType) -> Self {
        Self::Plain(ty)
    }
}

impl Recipe {
    /// Every recipe that can be followed, from the most bits to the fewest.
    pub fn all() -> impl Iterator<Item = Self> {
        use WeightType as T;
        let plain = |ty| Self::Plain(ty);
        [T::F32, T::BF16, T::F16, T::Q8_0, T::Q6_K].into_iter().map(plain).chain([
            Self::Q5_K_M,
            plain(T::Q5_K),
            Self::Q4_K_M,
            plain(T::Q4_K),
            plain(T::Q4_0),
        ])
    }

    /// The recipe of this name, in any case of letters.
    pub fn from_name(name: &str) -> Option<Self> {
        Self::all().find(|recipe| recipe.name().eq_ignore_ascii_case(name))
    }

    /// What it is called.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Plain(ty) => ty.name(),
            Self::Q4_K_M => "Q4_K_M",
            Self::Q5_K_M => "Q5_K_M",
        }
    }

    /// The format of most matrices.
    pub const fn base(self) -> WeightType {
        match self {
            Self::Plain(ty) => ty,
            Self::Q4_K_M => WeightType::Q4_K,
            Self::Q5_K_M => WeightType::Q5_K,
        }
    }

    /// Whether there is a function that writes it; some formats are only read.
    pub fn is_possible(self) -> bool {
        encoder(self.base()).is_some()
    }

    /// The format in which a tensor is kept.
    ///
    /// - What is not a matrix, the convolution and the small gate matrices of a linear layer, and
    ///   what chooses experts: F32.
    /// - The matrix that makes the logits, if the base has fewer than 6 bits: `Q6_K`. A tied
    ///   embedding is that matrix, so that tokens are never looked up in fewer bits.
    /// - What a mixture spends more bits on.
    /// - A matrix whose rows are not whole blocks: `Q8_0`, and if that does not fit either, F16.
    pub fn format_of(self, name: TensorName, config: &ModelConfig) -> WeightType {
        if !name.is_matrix(config) {
            return WeightType::F32;
        }
        let logits = name == TensorName::Output || (config.tied && name == TensorName::Embedding);
        let base = self.base();
        let wanted = match base {
            WeightType::Q4_0 | WeightType::Q4_K | WeightType::Q5_K if logits => WeightType::Q6_K,
            _ => self.richer(name, config).unwrap_or(base),
        };
        let row = name.shape(config).last().copied().unwrap_or(1);
        let fits = |ty: &WeightType| row.is_multiple_of(ty.block_elements());
        [wanted, WeightType::Q8_0].into_iter().find(fits).unwrap_or(WeightType::F16)
    }

    /// The format of a tensor on which a mixture spends more bits than on others.
    fn richer(self, name: TensorName, config: &ModelConfig) -> Option<WeightType> {
        use Role as R;
        if matches!(self, Self::Plain(_)) {
            return None;
        }
        let (layer, role) = match name {
            TensorName::Layer(layer, role) => (layer, role),
            TensorName::MtpLayer(role) => (config.layers.len(), role),
            _ => return None,
        };
        match role {
            R::DeltaQkv if self == Self::Q4_K_M => Some(WeightType::Q5_K),
            R::DeltaQkv => Some(WeightType::Q6_K),
            R::V | R::FfnDown | R::ExpertDown(_) | R::ExpertsDown | R::SharedDown => {
                let layers = config.layers.len() + config.mtp_layers;
                is_sensitive(layer, layers).then_some(WeightType::Q6_K)
            }
            _ => None,
        }
    }

    /// The number by which GGUF files tell what most of their matrices are.
    pub(crate) fn file_type(self) -> u32 {
        match self {
            Self::Plain(WeightType::F32) => 0,
            Self::Plain(WeightType::F16) => 1,
            Self::Plain(WeightType::Q4_0) => 2,
            Self::Plain(WeightType::Q8_0) => 7,
            Self::Plain(WeightType::Q4_K) => 14,
            Self::Q4_K_M => 15,
            Self::Plain(WeightType::Q5_K) => 16,
            Self::Q5_K_M => 17,
            Self::Plain(WeightType::Q6_K) => 18,
            Self::Plain(WeightType::BF16) => 32,
            // The number for files whose formats must be looked at one by one.
            Self::Plain(_) => 1024,
        }
    }
}

impl fmt::Display for Recipe {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// Whether errors of this layer weigh more: the first and the last eighth, and every third one
/// between them.
fn is_sensitive(layer: usize, layers: usize) -> bool {
    let eighth = layers / 8;
    layer < eighth || layer >= 7 * layers / 8 || (layer - eighth) % 3 == 2
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;
    use crate::Source;

    fn config(model: &str) -> ModelConfig {
        let fixtures = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures");
        Source::open(&fixtures.join(model)).unwrap().config().clone()
    }

    #[test]
    fn names_are_found_in_any_case_and_stand_for_one_recipe_each() {
        for recipe in Recipe::all() {
            assert!(recipe.is_possible());
            assert_eq!(Recipe::from_name(recipe.name()), Some(recipe));
            assert_eq!(Recipe::from_name(&recipe.name().to_lowercase()), Some(recipe));
        }
        // Read, but never written.
        assert_eq!(Recipe::from_name("IQ4_NL"), None);
        assert!(!Recipe::from(WeightType::IQ4_NL).is_possible());
        let written = WeightType::all().filter(|&ty| encoder(ty).is_some());
        let plain = Recipe::all().filter(|recipe| matches!(recipe, Recipe::Plain(_)));
        assert_eq!(plain.count(), written.count(), "a format that is written has no recipe");
    }

    // Requirement 54
    #[test]
    fn rows_that_are_no_whole_blocks_fall_back() {
        let mut config = config("qwen3");
        config.hidden = 512;
        config.ffn = 96;
        let ty = |role, ty, config: &ModelConfig| {
            Recipe::Plain(ty).format_of(TensorName::Layer(0, role), config)
        };
        assert_eq!(ty(Role::FfnUp, WeightType::Q4_K, &config), WeightType::Q4_K);
        assert_eq!(ty(Role::FfnDown, WeightType::Q4_K, &config), WeightType::Q8_0);
        assert_eq!(ty(Role::FfnDown, WeightType::BF16, &config), WeightType::BF16);
        config.ffn = 80;
        assert_eq!(ty(Role::FfnDown, WeightType::Q4_K, &config), WeightType::F16);
        assert_eq!(ty(Role::AttnNorm, WeightType::Q4_K, &config), WeightType::F32);
        let embedding = |tied, recipe: Recipe| {
            let config = ModelConfig { tied, ..config.clone() };
            recipe.format_of(TensorName::Embedding, &config)
        };
        for recipe in [WeightType::Q4_K.into(), Recipe::Q4_K_M, Recipe::Q5_K_M] {
            assert_eq!(embedding(true, recipe), WeightType::Q6_K);
            assert_eq!(embedding(false, recipe), recipe.base());
        }
        assert_eq!(embedding(true, WeightType::Q8_0.into()), WeightType::Q8_0);
    }

    #[test]
    fn mixtures_spend_bits_on_half_of_the_layers() {
        let mut config = config("qwen3_5");
        (config.hidden, config.ffn, config.mtp_layers) = (1024, 3584, 0);
        config.layers = config.layers.repeat(3);
        assert_eq!(config.layers.len(), 24);
        let with = |recipe: Recipe, role| {
            let layers = 0..config.layers.len();
            let ty = |layer: &usize| recipe.format_of(TensorName::Layer(*layer, role), &config);
            layers.filter(|layer| ty(layer) == WeightType::Q6_K).collect::<Vec<_>>()
        };
        let sensitive = [0, 1, 2, 5, 8, 11, 14, 17, 20, 21, 22, 23];
        for recipe in [Recipe::Q4_K_M, Recipe::Q5_K_M] {
            assert_eq!(with(recipe, Role::FfnDown), sensitive);
            assert_eq!(with(recipe, Role::V), sensitive);
            assert!(with(recipe, Role::FfnUp).is_empty());
        }
        assert!(with(WeightType::Q4_K.into(), Role::FfnDown).is_empty());
        let qkv = TensorName::Layer(0, Role::DeltaQkv);
        assert_eq!(Recipe::Q4_K_M.format_of(qkv, &config), WeightType::Q5_K);
        assert_eq!(Recipe::Q5_K_M.format_of(qkv, &config), WeightType::Q6_K);
        for role in [Role::DeltaBeta, Role::DeltaAlpha, Role::DeltaConv, Role::DeltaA] {
            let name = TensorName::Layer(0, role);
            assert_eq!(Recipe::Q4_K_M.format_of(name, &config), WeightType::F32);
        }
    }
}
