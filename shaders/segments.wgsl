// Ranges of elements that are updated alike, and which of them a chunk of 1024 belongs to.
//
// Limits: 256 segments, by a search of eight steps.
struct SegmentDims {
    first: u32, // of the parameter
    count: u32,
    kind: u32, // 2 cohort + 1 if decayed
    chunk: u32, // the first of the segment
    state: u32, // first element of the gradient
    moment: u32, // first element of the moments
    spare_b: u32,
    spare_c: u32,
}

struct SegmentsDims {
    segments: u32,
    chunks: u32,
    rate: f32, // Muon: multiple of the learning rate
    adjust: f32, // Muon: factor of the update
    table: array<SegmentDims, 256>,
}

@group(0) @binding(0) var<uniform> dims: SegmentsDims;

// The last segment that starts at or before a chunk.
fn segment_of(chunk: u32) -> SegmentDims {
    var at = 0u;
    // Eight halvings tell 256 entries apart. Entries past the last segment hold the chunk after all others.
    for (var half = 128u; half > 0u; half /= 2u) {
        let next = at + half;
        at = select(at, next, next < dims.segments && dims.table[min(next, 255u)].chunk <= chunk);
    }
    return dims.table[at];
}
