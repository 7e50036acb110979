"""Sprout's network, written from the published math of the Gated DeltaNet hybrid family.

Rows hold several conversations one after another. `document` numbers them, so that attention,
convolution and recurrence never look across a border: a packed row computes exactly what each
conversation would compute alone.
"""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import nn

CHUNK = 64
# The log decay that forgets a whole document: exp(-60) is nothing beside f32 rounding, and the
# sums of a few of them inside a chunk still leave the ordinary decays their precision.
FORGET = -60.0


@dataclass
class Dims:
    vocab: int = 1536
    hidden: int = 160
    ffn: int = 320
    layers: tuple = ("gdn", "gdn", "full", "gdn", "gdn", "full")
    heads: int = 4
    kv_heads: int = 2
    head_dim: int = 64
    rotary_dim: int = 16
    theta: float = 10000.0
    key_heads: int = 2
    value_heads: int = 4
    gdn_dim: int = 64
    conv: int = 4
    eps: float = 1e-6


@dataclass
class Layout:
    """What every layer needs to know of the rows: positions, borders, attention mask."""

    cos: torch.Tensor
    sin: torch.Tensor
    first: torch.Tensor
    depth: torch.Tensor
    mask: torch.Tensor


def layout_of(document, position, dims):
    """`document`, `position`: [rows, length] integers."""
    half = dims.rotary_dim // 2
    frequency = dims.theta ** (
        -torch.arange(half, device=document.device, dtype=torch.float32) / half
    )
    angle = position.float()[..., None] * frequency
    length = document.shape[1]
    causal = torch.ones(length, length, dtype=torch.bool, device=document.device).tril()
    mask = causal & (document[:, :, None] == document[:, None, :])
    return Layout(angle.cos(), angle.sin(), position == 0, position, mask[:, None])


class Norm(nn.Module):
    """RMS norm whose stored weight is the distance from one."""

    def __init__(self, width, eps):
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(width))
        self.eps = eps

    def forward(self, x):
        x = x.float()
        return x * torch.rsqrt(x.square().mean(-1, keepdim=True) + self.eps) * (1 + self.weight)


def linear(inputs, outputs):
    return nn.Linear(inputs, outputs, bias=False)


class Mlp(nn.Module):
    def __init__(self, dims):
        super().__init__()
        self.gate_proj = linear(dims.hidden, dims.ffn)
        self.up_proj = linear(dims.hidden, dims.ffn)
        self.down_proj = linear(dims.ffn, dims.hidden)

    def forward(self, x):
        return self.down_proj(F.silu(self.gate_proj(x)) * self.up_proj(x))


def rotate(x, layout):
    """Rotary embedding of the first `rotary_dim` entries. `x`: [rows, length, heads, head_dim]."""
    cos, sin = layout.cos[:, :, None], layout.sin[:, :, None]
    half = cos.shape[-1]
    a, b, rest = x[..., :half], x[..., half : 2 * half], x[..., 2 * half :]
    return torch.cat((a * cos - b * sin, b * cos + a * sin, rest), dim=-1)


class Attention(nn.Module):
    """Grouped-query attention with per-head norms and an output gate."""

    def __init__(self, dims):
        super().__init__()
        self.dims = dims
        self.q_proj = linear(dims.hidden, 2 * dims.heads * dims.head_dim)
        self.k_proj = linear(dims.hidden, dims.kv_heads * dims.head_dim)
        self.v_proj = linear(dims.hidden, dims.kv_heads * dims.head_dim)
        self.o_proj = linear(dims.heads * dims.head_dim, dims.hidden)
        self.q_norm = Norm(dims.head_dim, dims.eps)
        self.k_norm = Norm(dims.head_dim, dims.eps)

    def forward(self, x, layout):
        dims, (rows, length, _) = self.dims, x.shape
        q, gate = self.q_proj(x).view(rows, length, dims.heads, 2 * dims.head_dim).chunk(2, -1)
        k = self.k_proj(x).view(rows, length, dims.kv_heads, dims.head_dim)
        v = self.v_proj(x).view(rows, length, dims.kv_heads, dims.head_dim)
        q, k = rotate(self.q_norm(q), layout), rotate(self.k_norm(k), layout)
        group = dims.heads // dims.kv_heads
        k, v = k.repeat_interleave(group, 2), v.repeat_interleave(group, 2)
        q, k, v = (t.to(v.dtype).transpose(1, 2) for t in (q, k, v))
        out = F.scaled_dot_product_attention(q, k, v, attn_mask=layout.mask)
        return self.o_proj((out.transpose(1, 2) * torch.sigmoid(gate)).flatten(2))


def unit(x):
    return x * torch.rsqrt(x.square().sum(-1, keepdim=True) + 1e-6)


def gated_delta_rule(q, k, v, log_decay, beta):
    """The chunked gated delta rule.

    `q`, `k`, `v`: [rows, heads, length, dim] in f32; `log_decay`, `beta`: [rows, heads, length].
    Inside a chunk the sequential updates u_t = beta_t (v_t - S_t' k_t) are one unit lower
    triangular system; only the state S [dim, dim] is carried from chunk to chunk.
    """
    rows, heads, length, dim = q.shape
    chunks = length // CHUNK
    q, k, v = (t.view(rows, heads, chunks, CHUNK, dim) for t in (q, k, v))
    total = log_decay.view(rows, heads, chunks, CHUNK).cumsum(-1)
    beta = beta.view(rows, heads, chunks, CHUNK, 1)
    lower = torch.ones(CHUNK, CHUNK, dtype=torch.bool, device=q.device).tril()
    between = (total[..., :, None] - total[..., None, :]).masked_fill(~lower, float("-inf")).exp()
    system = (beta * (k @ k.mT) * between).tril(-1)
    grown = total.exp()[..., None]
    sides = torch.cat((beta * v, beta * grown * k), dim=-1)
    solved = torch.linalg.solve_triangular(system, sides, upper=False, unitriangular=True)
    fresh, recalled = solved.split(dim, dim=-1)
    local = (q @ k.mT) * between
    reading = q * grown
    writing = (k * (total[..., -1:] - total).exp()[..., None]).mT
    kept = total[..., -1].exp()[..., None, None]
    state = q.new_zeros(rows, heads, dim, dim)
    outputs = []
    for c in range(chunks):
        update = fresh[:, :, c] - recalled[:, :, c] @ state
        outputs.append(reading[:, :, c] @ state + local[:, :, c] @ update)
        state = state * kept[:, :, c] + writing[:, :, c] @ update
    return torch.stack(outputs, 2).view(rows, heads, length, dim)


class DeltaNet(nn.Module):
    """Gated DeltaNet mixer: short convolution, gated delta rule, gated norm."""

    def __init__(self, dims):
        super().__init__()
        self.dims = dims
        key, value = dims.key_heads * dims.gdn_dim, dims.value_heads * dims.gdn_dim
        self.in_proj_qkv = linear(dims.hidden, 2 * key + value)
        self.in_proj_z = linear(dims.hidden, value)
        self.in_proj_b = linear(dims.hidden, dims.value_heads)
        self.in_proj_a = linear(dims.hidden, dims.value_heads)
        self.conv1d = nn.Conv1d(
            2 * key + value, 2 * key + value, dims.conv, groups=2 * key + value, bias=False
        )
        self.A_log = nn.Parameter(torch.linspace(0.5, 6.0, dims.value_heads).log())
        # Inverse softplus of decays between 0.01 and 0.1, so that memory starts out long.
        step = torch.logspace(-2, -1, dims.value_heads)
        self.dt_bias = nn.Parameter(step + torch.log(-torch.expm1(-step)))
        self.norm = nn.Module()
        self.norm.weight = nn.Parameter(torch.ones(dims.gdn_dim))
        self.out_proj = linear(value, dims.hidden)

    def convolve(self, x, layout):
        """Causal depthwise convolution; taps that would reach before the document are zero."""
        taps = self.conv1d.weight[:, 0].to(x.dtype)
        out = x * taps[:, -1]
        for back in range(1, self.dims.conv):
            shifted = F.pad(x, (0, 0, back, 0))[:, : x.shape[1]]
            inside = (layout.depth >= back)[..., None]
            out = out + torch.where(inside, shifted, 0) * taps[:, -1 - back]
        return F.silu(out)

    def forward(self, x, layout):
        dims, (rows, length, _) = self.dims, x.shape
        key = dims.key_heads * dims.gdn_dim
        mixed = self.convolve(self.in_proj_qkv(x), layout)
        q, k, v = mixed.split((key, key, dims.value_heads * dims.gdn_dim), dim=-1)
        q, k, v = (
            t.float().view(rows, length, -1, dims.gdn_dim).transpose(1, 2) for t in (q, k, v)
        )
        group = dims.value_heads // dims.key_heads
        q, k = (unit(t).repeat_interleave(group, 1) for t in (q, k))
        step = F.softplus(self.in_proj_a(x).float() + self.dt_bias)
        log_decay = -self.A_log.exp() * step
        log_decay = torch.where(layout.first[..., None], FORGET, log_decay).transpose(1, 2)
        beta = self.in_proj_b(x).float().sigmoid().transpose(1, 2)
        with torch.autocast(x.device.type, enabled=False):
            out = gated_delta_rule(q * dims.gdn_dim**-0.5, k, v, log_decay, beta)
        out = out.transpose(1, 2)
        out = out * torch.rsqrt(out.square().mean(-1, keepdim=True) + dims.eps) * self.norm.weight
        z = self.in_proj_z(x).view(rows, length, dims.value_heads, dims.gdn_dim)
        return self.out_proj((out * F.silu(z.float())).flatten(2))


class Layer(nn.Module):
    def __init__(self, dims, kind):
        super().__init__()
        self.kind = kind
        self.input_layernorm = Norm(dims.hidden, dims.eps)
        self.post_attention_layernorm = Norm(dims.hidden, dims.eps)
        if kind == "gdn":
            self.linear_attn = DeltaNet(dims)
        else:
            self.self_attn = Attention(dims)
        self.mlp = Mlp(dims)

    def forward(self, h, layout):
        mixer = self.linear_attn if self.kind == "gdn" else self.self_attn
        h = h + mixer(self.input_layernorm(h), layout)
        return h + self.mlp(self.post_attention_layernorm(h))


class Trunk(nn.Module):
    def __init__(self, dims):
        super().__init__()
        self.embed_tokens = nn.Embedding(dims.vocab, dims.hidden)
        self.layers = nn.ModuleList(Layer(dims, kind) for kind in dims.layers)
        self.norm = Norm(dims.hidden, dims.eps)

    def forward(self, tokens, layout):
        h = self.embed_tokens(tokens)
        for layer in self.layers:
            h = layer(h, layout)
        return self.norm(h)


class Mtp(nn.Module):
    """Guesses the token after next from the final hidden state and the next token's embedding."""

    def __init__(self, dims):
        super().__init__()
        self.fc = linear(2 * dims.hidden, dims.hidden)
        self.pre_fc_norm_embedding = Norm(dims.hidden, dims.eps)
        self.pre_fc_norm_hidden = Norm(dims.hidden, dims.eps)
        self.layers = nn.ModuleList([Layer(dims, "full")])
        self.norm = Norm(dims.hidden, dims.eps)

    def forward(self, hidden, next_embedding, layout):
        both = (self.pre_fc_norm_embedding(next_embedding), self.pre_fc_norm_hidden(hidden))
        return self.norm(self.layers[0](self.fc(torch.cat(both, -1)), layout))


class Sprout(nn.Module):
    def __init__(self, dims):
        super().__init__()
        self.dims = dims
        self.model = Trunk(dims)
        self.mtp = Mtp(dims)
        self.apply(self.initialise)

    @staticmethod
    def initialise(module):
        if isinstance(module, nn.Linear):
            nn.init.normal_(module.weight, std=module.in_features**-0.5)
        if isinstance(module, nn.Embedding):
            nn.init.normal_(module.weight, std=0.08)

    def logits(self, hidden):
        return F.linear(hidden, self.model.embed_tokens.weight)

    def hidden(self, tokens, layout):
        return self.model(tokens, layout)

    def draft_hidden(self, hidden, tokens, layout):
        """MTP output per position t, from hidden t and token t+1; the last position is void."""
        following = torch.roll(tokens, -1, dims=1)
        return self.mtp(hidden, self.model.embed_tokens(following), layout)

    def forward(self, tokens, document, position, weight):
        """Mean losses of the next token and of the MTP head, and the count of right tokens.

        `weight`: [rows, length], the loss weight of each token as a target.
        """
        layout = layout_of(document, position, self.dims)
        hidden = self.hidden(tokens, layout)
        loss, right = self.loss(hidden, tokens, document, weight, 1)
        draft, _ = self.loss(self.draft_hidden(hidden, tokens, layout), tokens, document, weight, 2)
        return loss, draft, right

    def loss(self, hidden, tokens, document, weight, ahead):
        target = tokens[:, ahead:]
        same = document[:, ahead:] == document[:, :-ahead]
        weight = weight[:, ahead:] * same
        logits = self.logits(hidden[:, :-ahead]).float()
        each = F.cross_entropy(logits.flatten(0, 1), target.flatten(), reduction="none")
        each = each.view_as(weight)
        supervised = weight > 0.5
        right = ((logits.argmax(-1) == target) & supervised).sum() / supervised.sum().clamp(min=1)
        return (each * weight).sum() / weight.sum().clamp(min=1), right
