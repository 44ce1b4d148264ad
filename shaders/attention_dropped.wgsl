// Dropout of the weights of attention for software drivers, in the place of attention_undropped.wgsl.
//
// o_i = sum_j p_ij f_ij v_j,  dv_j = sum_i p_ij f_ij do_i,  ds_ij = p_ij (f_ij <do_i, v_j> - <do_i, o_i>) scale
// f: the factors of dropout_mask.wgsl, 0 or 1 / (1 - p); row i, column j. Sums of p and log-sums are of weights not dropped.
#import "attention_tile.wgsl"
#import "dropout_mask.wgsl"

// One for each kernel, behind all else that it binds.
@group(0) @binding(7) var<uniform> forward_draw: DropoutDraw;
@group(0) @binding(8) var<uniform> queries_draw: DropoutDraw;
@group(0) @binding(9) var<uniform> keys_values_draw: DropoutDraw;

alias Masks = DropoutMask;
alias Factors = Pair;

fn forward_masks(sequence: u32, head: u32) -> Masks { return dropout_mask(forward_draw, dims.place, sequence, head); }
fn queries_masks(sequence: u32, head: u32) -> Masks { return dropout_mask(queries_draw, dims.place, sequence, head); }

fn keys_values_masks(sequence: u32, head: u32) -> Masks {
    return dropout_mask(keys_values_draw, dims.place, sequence, head);
}

// Of a key and the eight queries from `first_query`, a multiple of 2.
fn of_key(masks: Masks, first_query: u32, key: u32) -> Factors {
    return Pair(
        vec4<f32>(dropout_down(masks, first_query, key), dropout_down(masks, first_query + 2u, key)),
        vec4<f32>(dropout_down(masks, first_query + 4u, key), dropout_down(masks, first_query + 6u, key)),
    );
}

// Of a query and the eight keys from `first_key`, a multiple of 2.
fn of_query(masks: Masks, query: u32, first_key: u32) -> Factors {
    return Pair(
        vec4<f32>(dropout_across(masks, query, first_key), dropout_across(masks, query, first_key + 2u)),
        vec4<f32>(dropout_across(masks, query, first_key + 4u), dropout_across(masks, query, first_key + 6u)),
    );
}

fn dropped(x: Pair, factors: Factors) -> Pair { return times(x, factors); }
