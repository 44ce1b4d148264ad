// Appends the rows of a chunk to a key or value cache.
//
// cache[run.position + r] = x[r].
// Mapping: one element per invocation.
// Writes: overwrite. Rows that would fall past the capacity are dropped.

struct CacheDims {
    rows: u32,
    columns: u32,
    capacity: u32,
}

struct Run {
    position: u32,
}

@group(0) @binding(0) var<uniform> dims: CacheDims;
@group(0) @binding(1) var<storage, read> x: array<f32>; // (rows, columns)
@group(0) @binding(2) var<uniform> run: Run;
@group(0) @binding(3) var<storage, read_write> cache: array<f32>; // (capacity, columns)

@compute @workgroup_size(64)
fn append(@builtin(global_invocation_id) id: vec3<u32>, @builtin(num_workgroups) groups: vec3<u32>) {
    for (var i = id.x; i < dims.rows * dims.columns; i += groups.x * 64u) {
        let row = run.position + i / dims.columns;
        // The host keeps chunks inside; a wrong position must still not write behind the cache.
        if (row < dims.capacity) {
            cache[row * dims.columns + i % dims.columns] = x[i];
        }
    }
}
