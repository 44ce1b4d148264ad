"""TokenFormer (arXiv 2410.23168) for transformers, as `tokenformer export` writes it.

A Transformer in which every linear projection is attention to learnable parameter tokens:

    x = x + Proj(CausalAttention(RoPE(Q(ln x)), RoPE(K(ln x)), V(ln x)))
    x = x + FFN(ln x)                                   ln: LayerNorm without parameters
    logits = LayerNorm(x; weight, bias) head^T          the head may be the embedding

In training with dropout: of the embedding, the weights of CausalAttention, and what Proj and FFN give.
"""

import torch
from torch import nn
from torch.nn import functional as F
from transformers import DynamicCache, GenerationMixin, PreTrainedModel
from transformers.modeling_outputs import CausalLMOutputWithPast

from .configuration_tokenformer import TokenformerConfig

# Its name has changed in transformers 5.
CACHE = "cache" if "cache" in CausalLMOutputWithPast.__dataclass_fields__ else "past_key_values"


class Pattention(nn.Module):
    """Attention of every row to parameter tokens, in the place of a linear projection."""

    def __init__(self, config, slots, tau):
        super().__init__()
        self.key_param_tokens = nn.Parameter(0.02 * torch.randn(slots, config.hidden_size))
        self.value_param_tokens = nn.Parameter(0.02 * torch.randn(slots, config.hidden_size))
        self.normalization = config.norm_activation_type
        self.gelu = "tanh" if config.gelu_tanh else "none"
        self.tau, self.eps = tau, config.pattention_eps * tau

    def forward(self, x):
        scores = (x @ self.key_param_tokens.T).float()
        return self.weights(scores).to(x.dtype) @ self.value_param_tokens

    def weights(self, scores):
        if self.normalization == "l2_norm_gelu":
            length = scores.norm(dim=-1, keepdim=True) + self.eps
            return F.gelu(self.tau * scores / length, approximate=self.gelu)
        if self.normalization == "gelu_l2_norm":
            active = F.gelu(scores, approximate=self.gelu)
            return self.tau * active / (active.norm(dim=-1, keepdim=True) + self.eps)
        if self.normalization == "softmax":
            return self.tau**2 * scores.softmax(dim=-1)
        raise ValueError(f"norm_activation_type is {self.normalization!r}, which is none of TokenFormer's")


class Attention(nn.Module):
    """Causal attention between the tokens of a text."""

    def __init__(self, config, layer):
        super().__init__()
        self.layer, self.heads, self.dropout = layer, config.num_attention_heads, config.dropout
        self.query = Pattention(config, config.qkv_slot_num, config.tau_qkv)
        self.key = Pattention(config, config.qkv_slot_num, config.tau_qkv)
        self.value = Pattention(config, config.qkv_slot_num, config.tau_qkv)
        self.proj = Pattention(config, config.proj_slot_num, config.tau_proj)

    def forward(self, x, rotation, mask, cache):
        query, key, value = (
            project(x).unflatten(-1, (self.heads, -1)).transpose(1, 2) for project in (self.query, self.key, self.value)
        )
        query, key = rotate(query, *rotation), rotate(key, *rotation)
        if cache is not None:
            key, value = cache.update(key, value, self.layer)
        dropped = self.dropout if self.training else 0.0
        attended = F.scaled_dot_product_attention(query, key, value, attn_mask=mask, dropout_p=dropped)
        return self.proj(attended.transpose(1, 2).flatten(-2))


class Layer(nn.Module):
    """One layer."""

    def __init__(self, config, layer):
        super().__init__()
        self.width, self.eps = (config.hidden_size,), config.layer_norm_eps
        self.attention = Attention(config, layer)
        self.mlp = Pattention(config, config.ffn_slot_num, config.tau_ffn)
        self.dropout = nn.Dropout(config.dropout)

    def forward(self, x, rotation, mask, cache):
        attended = self.attention(F.layer_norm(x, self.width, eps=self.eps), rotation, mask, cache)
        x = x + self.dropout(attended)
        return x + self.dropout(self.mlp(F.layer_norm(x, self.width, eps=self.eps)))


def rotate(x, cos, sin):
    """Rotates the first channels of every head by the angles of their positions; the rest pass."""
    half = cos.shape[-1]
    first, second, rest = x.split([half, half, x.shape[-1] - 2 * half], dim=-1)
    return torch.cat((first * cos - second * sin, second * cos + first * sin, rest), dim=-1)


class TokenformerForCausalLM(PreTrainedModel, GenerationMixin):
    """The model; names of its parameters are those of `tokenformer` checkpoints."""

    config_class = TokenformerConfig
    _no_split_modules = ["Layer"]
    _supports_sdpa = True

    def __init__(self, config):
        super().__init__(config)
        self.word_embeddings = nn.Embedding(config.vocab_size, config.hidden_size)
        self.layers = nn.ModuleList([Layer(config, layer) for layer in range(config.num_hidden_layers)])
        self.dropout = nn.Dropout(config.dropout)
        self.norm = nn.LayerNorm(config.hidden_size, eps=config.layer_norm_eps)
        if not config.tie_word_embeddings:
            self.embed_out = nn.Linear(config.hidden_size, config.vocab_size, bias=False)
        self.post_init()

    def get_input_embeddings(self):
        return self.word_embeddings

    def set_input_embeddings(self, embeddings):
        self.word_embeddings = embeddings

    def rotation(self, positions, dtype):
        """Cosines and sines of the angles at `positions`, for all heads."""
        head = self.config.hidden_size // self.config.num_attention_heads
        half = int(head * self.config.rotary_pct) // 2
        exponents = torch.arange(half, device=positions.device, dtype=torch.float32) / max(half, 1)
        angles = positions[:, None, :, None].float() * self.config.rotary_emb_base**-exponents
        return angles.cos().to(dtype), angles.sin().to(dtype)

    def forward(
        self,
        input_ids=None,
        attention_mask=None,
        position_ids=None,
        inputs_embeds=None,
        cache=None,
        past_key_values=None,
        labels=None,
        use_cache=None,
        logits_to_keep=0,
        **kwargs,
    ):
        x = self.word_embeddings(input_ids) if inputs_embeds is None else inputs_embeds
        cache = past_key_values if cache is None else cache
        wanted = self.config.use_cache and not self.training if use_cache is None else use_cache
        if cache is None and wanted:
            cache = DynamicCache()
        past = 0 if cache is None else cache.get_seq_length()
        keys = torch.arange(past + x.shape[1], device=x.device)
        rows = keys[past:]
        mask = (keys <= rows[:, None])[None, None]
        if attention_mask is not None:
            # What is padding still sees itself: attention to nothing would be no number.
            mask = mask & attention_mask[:, None, None, : len(keys)].bool() | (keys == rows[:, None])
        if position_ids is None:
            position_ids = rows[None]
        rotation = self.rotation(position_ids, x.dtype)
        x = self.dropout(x)
        for layer in self.layers:
            x = layer(x, rotation, mask, cache)
        kept = slice(-logits_to_keep, None) if isinstance(logits_to_keep, int) else logits_to_keep
        head = self.word_embeddings if self.config.tie_word_embeddings else self.embed_out
        logits = F.linear(self.norm(x[:, kept]), head.weight)
        loss = None
        if labels is not None:
            loss = self.loss_function(logits=logits, labels=labels, vocab_size=self.config.vocab_size, **kwargs)
        return CausalLMOutputWithPast(loss=loss, logits=logits, **{CACHE: cache if wanted else None})
