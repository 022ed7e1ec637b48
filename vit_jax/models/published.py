"""Published weights that load by name, as timm has them on the Hub: `hf://timm/ARCHITECTURE.TAG`.

MAE (He et al., 2022), BEiT (Bao et al., 2022), BEiT v2 (Peng et al., 2022), DeiT III (Touvron et al., 2022), CLIP
(Radford et al., 2021) and its open successors, EVA (Fang et al., 2023), EVA-02 (Fang et al., 2023), SigLIP and SigLIP 2
(Zhai et al., 2023; Tschannen et al., 2025), DINOv2 (Oquab et al., 2024), DINOv3 (Siméoni et al., 2025), AIMv2 (Fini
et al., 2025) and Perception Encoder (Bolya et al., 2025). Some ask for their terms to be accepted first.
"""

# Tags by architecture, as of timm 1.0.31.
TIMM = {
    "aimv2_1b_patch14_224": "apple_pt",
    "aimv2_1b_patch14_336": "apple_pt",
    "aimv2_1b_patch14_448": "apple_pt",
    "aimv2_3b_patch14_224": "apple_pt",
    "aimv2_3b_patch14_336": "apple_pt",
    "aimv2_3b_patch14_448": "apple_pt",
    "aimv2_huge_patch14_224": "apple_pt",
    "aimv2_huge_patch14_336": "apple_pt",
    "aimv2_huge_patch14_448": "apple_pt",
    "aimv2_large_patch14_224": "apple_pt apple_pt_dist",
    "aimv2_large_patch14_336": "apple_pt apple_pt_dist",
    "aimv2_large_patch14_448": "apple_pt",
    "beit_base_patch16_224": "in22k_ft_in22k in22k_ft_in22k_in1k",
    "beit_base_patch16_384": "in22k_ft_in22k_in1k",
    "beit_large_patch16_224": "in22k_ft_in22k in22k_ft_in22k_in1k",
    "beit_large_patch16_384": "in22k_ft_in22k_in1k",
    "beit_large_patch16_512": "in22k_ft_in22k_in1k",
    "beitv2_base_patch16_224": "in1k_ft_in1k in1k_ft_in22k in1k_ft_in22k_in1k",
    "beitv2_large_patch16_224": "in1k_ft_in1k in1k_ft_in22k in1k_ft_in22k_in1k",
    "deit3_base_patch16_224": "fb_in1k fb_in22k_ft_in1k",
    "deit3_base_patch16_384": "fb_in1k fb_in22k_ft_in1k",
    "deit3_huge_patch14_224": "fb_in1k fb_in22k_ft_in1k",
    "deit3_large_patch16_224": "fb_in1k fb_in22k_ft_in1k",
    "deit3_large_patch16_384": "fb_in1k fb_in22k_ft_in1k",
    "deit3_medium_patch16_224": "fb_in1k fb_in22k_ft_in1k",
    "deit3_small_patch16_224": "fb_in1k fb_in22k_ft_in1k",
    "deit3_small_patch16_384": "fb_in1k fb_in22k_ft_in1k",
    "eva02_base_patch14_224": "mim_in22k",
    "eva02_base_patch14_448": "mim_in22k_ft_in1k mim_in22k_ft_in22k mim_in22k_ft_in22k_in1k",
    "eva02_base_patch16_clip_224": "merged2b",
    "eva02_large_patch14_224": "mim_in22k mim_m38m",
    "eva02_large_patch14_448": (
        "mim_in22k_ft_in1k mim_in22k_ft_in22k mim_in22k_ft_in22k_in1k mim_m38m_ft_in1k mim_m38m_ft_in22k "
        "mim_m38m_ft_in22k_in1k"
    ),
    "eva02_large_patch14_clip_224": "merged2b",
    "eva02_large_patch14_clip_336": "merged2b",
    "eva02_small_patch14_224": "mim_in22k",
    "eva02_small_patch14_336": "mim_in22k_ft_in1k",
    "eva02_tiny_patch14_224": "mim_in22k",
    "eva02_tiny_patch14_336": "mim_in22k_ft_in1k",
    "eva_giant_patch14_224": "clip_ft_in1k",
    "eva_giant_patch14_336": "clip_ft_in1k m30m_ft_in22k_in1k",
    "eva_giant_patch14_560": "m30m_ft_in22k_in1k",
    "eva_giant_patch14_clip_224": "laion400m merged2b",
    "naflexvit_base_patch16_gap": "e300_s576_in1k",
    "naflexvit_base_patch16_siglip": "v2_webli",
    "naflexvit_so400m_patch16_siglip": "v2_webli",
    "vit_7b_patch16_dinov3": "lvd1689m sat493m",
    "vit_base_patch14_dinov2": "lvd142m",
    "vit_base_patch14_reg4_dinov2": "lvd142m",
    "vit_base_patch16_224": "mae",
    "vit_base_patch16_clip_224": (
        "datacompxl dfn2b laion2b laion2b_ft_in1k laion2b_ft_in12k laion2b_ft_in12k_in1k laion400m_e32 "
        "metaclip_2pt5b metaclip_400m openai openai_ft_in1k openai_ft_in12k openai_ft_in12k_in1k"
    ),
    "vit_base_patch16_clip_384": "laion2b_ft_in1k laion2b_ft_in12k_in1k openai_ft_in1k openai_ft_in12k_in1k",
    "vit_base_patch16_dinov3": "lvd1689m",
    "vit_base_patch16_dinov3_qkvb": "eupe_lvd1689m lvd1689m",
    "vit_base_patch16_plus_clip_240": "laion400m_e32",
    "vit_base_patch16_siglip_224": "v2_webli webli",
    "vit_base_patch16_siglip_256": "v2_webli webli webli_i18n",
    "vit_base_patch16_siglip_384": "v2_webli webli",
    "vit_base_patch16_siglip_512": "v2_webli webli",
    "vit_base_patch16_siglip_gap_224": "v2_webli webli",
    "vit_base_patch16_siglip_gap_256": "v2_webli webli webli_i18n",
    "vit_base_patch16_siglip_gap_384": "v2_webli webli",
    "vit_base_patch16_siglip_gap_512": "v2_webli webli",
    "vit_base_patch32_clip_224": (
        "datacompxl laion2b laion2b_ft_in1k laion2b_ft_in12k_in1k laion400m_e32 metaclip_2pt5b "
        "metaclip_400m openai openai_ft_in1k"
    ),
    "vit_base_patch32_clip_256": "datacompxl",
    "vit_base_patch32_clip_384": "laion2b_ft_in12k_in1k openai_ft_in12k_in1k",
    "vit_base_patch32_clip_448": "laion2b_ft_in12k_in1k",
    "vit_base_patch32_siglip_256": "v2_webli",
    "vit_base_patch32_siglip_gap_256": "v2_webli",
    "vit_betwixt_patch32_clip_224": "tinyclip_laion400m",
    "vit_giant_patch14_clip_224": "laion2b",
    "vit_giant_patch14_dinov2": "lvd142m",
    "vit_giant_patch14_reg4_dinov2": "lvd142m",
    "vit_giantopt_patch16_siglip_256": "v2_webli",
    "vit_giantopt_patch16_siglip_384": "v2_webli",
    "vit_giantopt_patch16_siglip_gap_256": "v2_webli",
    "vit_giantopt_patch16_siglip_gap_384": "v2_webli",
    "vit_gigantic_patch14_clip_224": "laion2b metaclip2_worldwide metaclip_2pt5b",
    "vit_gigantic_patch14_clip_378": "metaclip2_worldwide",
    "vit_huge_patch14_clip_224": (
        "dfn5b laion2b laion2b_ft_in1k laion2b_ft_in12k laion2b_ft_in12k_in1k metaclip2_worldwide "
        "metaclip_2pt5b metaclip_altogether"
    ),
    "vit_huge_patch14_clip_336": "laion2b_ft_in12k_in1k",
    "vit_huge_patch14_clip_378": "dfn5b metaclip2_worldwide",
    "vit_huge_plus_patch16_dinov3": "lvd1689m",
    "vit_huge_plus_patch16_dinov3_qkvb": "lvd1689m",
    "vit_large_patch14_clip_224": (
        "apple_mclip2_dfndr2b datacompxl dfn2b dfn2b_s39b laion2b laion2b_ft_in1k laion2b_ft_in12k "
        "laion2b_ft_in12k_in1k laion400m_e32 metaclip_2pt5b metaclip_400m openai openai_ft_in1k "
        "openai_ft_in12k openai_ft_in12k_in1k"
    ),
    "vit_large_patch14_clip_336": "laion2b_ft_in1k laion2b_ft_in12k_in1k openai openai_ft_in12k_in1k",
    "vit_large_patch14_dinov2": "lvd142m",
    "vit_large_patch14_reg4_dinov2": "lvd142m",
    "vit_large_patch16_224": "mae",
    "vit_large_patch16_dinov3": "lvd1689m sat493m",
    "vit_large_patch16_dinov3_qkvb": "lvd1689m sat493m",
    "vit_large_patch16_siglip_256": "v2_webli webli",
    "vit_large_patch16_siglip_384": "v2_webli webli",
    "vit_large_patch16_siglip_512": "v2_webli",
    "vit_large_patch16_siglip_gap_256": "v2_webli webli",
    "vit_large_patch16_siglip_gap_384": "v2_webli webli",
    "vit_large_patch16_siglip_gap_512": "v2_webli",
    "vit_medium_patch16_clip_224": "tinyclip_yfcc15m",
    "vit_medium_patch32_clip_224": "tinyclip_laion400m",
    "vit_pe_core_base_patch16_224": "fb",
    "vit_pe_core_gigantic_patch14_448": "fb",
    "vit_pe_core_large_patch14_336": "fb",
    "vit_pe_core_small_patch16_384": "fb",
    "vit_pe_core_tiny_patch16_384": "fb",
    "vit_small_patch14_dinov2": "lvd142m",
    "vit_small_patch14_reg4_dinov2": "lvd142m",
    "vit_small_patch16_dinov3": "lvd1689m",
    "vit_small_patch16_dinov3_qkvb": "eupe_lvd1689m lvd1689m",
    "vit_small_plus_patch16_dinov3": "lvd1689m",
    "vit_small_plus_patch16_dinov3_qkvb": "lvd1689m",
    "vit_so400m_patch14_siglip_224": "v2_webli webli",
    "vit_so400m_patch14_siglip_378": "v2_webli webli webli_ft_in1k",
    "vit_so400m_patch14_siglip_384": "webli",
    "vit_so400m_patch14_siglip_gap_224": "pali2_3b_pt pali2_10b_pt pali_mix pali_pt v2_webli webli",
    "vit_so400m_patch14_siglip_gap_378": "v2_webli webli webli_ft_in1k",
    "vit_so400m_patch14_siglip_gap_384": "webli",
    "vit_so400m_patch14_siglip_gap_448": (
        "pali2_3b_docci pali2_3b_pt pali2_10b_docci pali2_10b_pt pali_mix pali_ocrvqa pali_pt pali_refcoco_seg"
    ),
    "vit_so400m_patch14_siglip_gap_896": "pali2_3b_pt pali2_10b_pt pali_ocrvqa pali_pt pali_refcoco_seg",
    "vit_so400m_patch16_siglip_256": "v2_webli webli_i18n",
    "vit_so400m_patch16_siglip_384": "v2_webli",
    "vit_so400m_patch16_siglip_512": "v2_webli",
    "vit_so400m_patch16_siglip_gap_256": "v2_webli webli_i18n",
    "vit_so400m_patch16_siglip_gap_384": "v2_webli",
    "vit_so400m_patch16_siglip_gap_512": "v2_webli",
    "vit_tiny_patch16_dinov3_qkvb": "eupe_lvd1689m",
    "vit_xsmall_patch16_clip_224": "tinyclip_yfcc15m",
}


def addresses() -> list[str]:
    """Return the address of each."""
    return [f"hf://timm/{name}.{tag}" for name, tags in TIMM.items() for tag in tags.split()]
