// Attention of software drivers without dropout: nothing, which compilers inline away. In the kernels with dropout
// attention_dropped.wgsl takes the place of this file.
#import "attention_tile.wgsl"

struct Masks { none: u32 }
struct Factors { none: u32 }

fn forward_masks(sequence: u32, head: u32) -> Masks { return Masks(0u); }
fn queries_masks(sequence: u32, head: u32) -> Masks { return Masks(0u); }
fn keys_values_masks(sequence: u32, head: u32) -> Masks { return Masks(0u); }
fn of_key(masks: Masks, first_query: u32, key: u32) -> Factors { return Factors(0u); }
fn of_query(masks: Masks, query: u32, first_key: u32) -> Factors { return Factors(0u); }
fn dropped(x: Pair, factors: Factors) -> Pair { return x; }
