"""Configuration of a TokenFormer for transformers, as `tokenformer export` writes it."""

from transformers import PretrainedConfig


class TokenformerConfig(PretrainedConfig):
    """Sizes and constants of a model; the names of slots and scales are those of the published configurations."""

    model_type = "tokenformer"

    def __init__(
        self,
        vocab_size=50257,
        hidden_size=768,
        num_hidden_layers=12,
        num_attention_heads=12,
        max_position_embeddings=1024,
        qkv_slot_num=768,
        proj_slot_num=768,
        ffn_slot_num=3072,
        norm_activation_type="l2_norm_gelu",
        tau_qkv=None,
        tau_proj=None,
        tau_ffn=None,
        pattention_eps=1e-7,
        gelu_tanh=False,
        rotary_pct=0.25,
        rotary_emb_base=10000.0,
        layer_norm_eps=1e-5,
        dropout=0.0,
        use_cache=True,
        tie_word_embeddings=True,
        **kwargs,
    ):
        self.vocab_size = vocab_size
        self.hidden_size = hidden_size
        self.num_hidden_layers = num_hidden_layers
        self.num_attention_heads = num_attention_heads
        self.max_position_embeddings = max_position_embeddings
        self.qkv_slot_num = qkv_slot_num
        self.proj_slot_num = proj_slot_num
        self.ffn_slot_num = ffn_slot_num
        self.norm_activation_type = norm_activation_type
        self.tau_qkv = qkv_slot_num**0.5 if tau_qkv is None else tau_qkv
        self.tau_proj = proj_slot_num**0.5 if tau_proj is None else tau_proj
        self.tau_ffn = ffn_slot_num**0.5 if tau_ffn is None else tau_ffn
        self.pattention_eps = pattention_eps
        self.gelu_tanh = gelu_tanh
        self.rotary_pct = rotary_pct
        self.rotary_emb_base = rotary_emb_base
        self.layer_norm_eps = layer_norm_eps
        self.dropout = dropout
        self.use_cache = use_cache
        super().__init__(tie_word_embeddings=tie_word_embeddings, **kwargs)
