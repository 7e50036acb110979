"""Writes the model as HF transformers reads it, and reads such files back."""

import json

import torch
from safetensors.torch import load_file, save_file

CONTEXT = 4096
KEPT_F32 = ("A_log", "linear_attn.norm.weight")


def config_of(dims, token):
    """`token`: text -> id."""
    names = {"gdn": "linear_attention", "full": "full_attention"}
    return {
        "architectures": ["Qwen3_5ForCausalLM"],
        "model_type": "qwen3_5_text",
        "dtype": "bfloat16",
        "vocab_size": dims.vocab,
        "hidden_size": dims.hidden,
        "intermediate_size": dims.ffn,
        "num_hidden_layers": len(dims.layers),
        "layer_types": [names[kind] for kind in dims.layers],
        "full_attention_interval": 3,
        "num_attention_heads": dims.heads,
        "num_key_value_heads": dims.kv_heads,
        "head_dim": dims.head_dim,
        "attention_bias": False,
        "attention_dropout": 0.0,
        "attn_output_gate": True,
        "linear_conv_kernel_dim": dims.conv,
        "linear_key_head_dim": dims.gdn_dim,
        "linear_value_head_dim": dims.gdn_dim,
        "linear_num_key_heads": dims.key_heads,
        "linear_num_value_heads": dims.value_heads,
        "mamba_ssm_dtype": "float32",
        "mtp_num_hidden_layers": 1,
        "mtp_use_dedicated_embeddings": False,
        "hidden_act": "silu",
        "initializer_range": 0.02,
        "rms_norm_eps": dims.eps,
        "max_position_embeddings": CONTEXT,
        "partial_rotary_factor": dims.rotary_dim / dims.head_dim,
        "rope_parameters": {
            "rope_type": "default",
            "rope_theta": dims.theta,
            "partial_rotary_factor": dims.rotary_dim / dims.head_dim,
            "mrope_interleaved": True,
            "mrope_section": [3, 3, 2],
        },
        "tie_word_embeddings": True,
        "use_cache": True,
        "bos_token_id": None,
        "eos_token_id": token("<|im_end|>"),
        "pad_token_id": token("<|endoftext|>"),
    }


def write_json(path, value):
    path.write_text(json.dumps(value, indent=2, ensure_ascii=False) + "\n")


def write_configs(folder, dims, token):
    write_json(folder / "config.json", config_of(dims, token))
    write_json(
        folder / "generation_config.json",
        {
            "do_sample": False,
            "temperature": 0.0,
            "eos_token_id": [token("<|im_end|>"), token("<|endoftext|>")],
            "pad_token_id": token("<|endoftext|>"),
        },
    )


def stored(model):
    """The tensors as they are stored: bf16 but for the few that set decay and gated norm."""
    tensors = {}
    for name, tensor in model.state_dict().items():
        kept = name.endswith(KEPT_F32)
        tensors[name] = (
            tensor.detach().cpu().to(torch.float32 if kept else torch.bfloat16).contiguous()
        )
    return tensors


def write_weights(folder, model):
    save_file(stored(model), str(folder / "model.safetensors"), metadata={"format": "pt"})


def load_weights(folder, model):
    model.load_state_dict(
        {n: t.float() for n, t in load_file(folder / "model.safetensors").items()}
    )


def with_transform(model, change):
    """Loads changed weights into the model and returns the old ones."""
    old = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    model.load_state_dict({name: change(name, tensor) for name, tensor in old.items()})
    return old


def as_bf16(name, tensor):
    return tensor if name.endswith(KEPT_F32) else tensor.bfloat16().float()
