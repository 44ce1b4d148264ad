// Runs recorded cases of operators on Dawn, Chromium's WebGPU, and holds the results against f64: no compiler and no run time of
// this program takes part. Prints a line for each case that is wrong, and a count; exits with 1 where one was.
//
//   node dawn.mjs CASE.json...
//
// A case has a name; `program`: the bytes of its `buffers`, and `steps`, one dispatch each (code, entry, constants, groups along x,
// parameters, which are the words at binding 0, and the blocks at bindings 1, 2, ... with their access); and `results`: the numbers
// wanted at a place, and their largest normalised mean square error. A block or place is [buffer, offset, bytes].
import { readFileSync } from 'node:fs';
import { create, globals } from 'webgpu';

const { GPUBufferUsage: Usage, GPUMapMode, GPUShaderStage } = globals;
const TYPES = { Read: 'read-only-storage', Write: 'storage', Uniform: 'uniform' };

// Kept, because Dawn hangs once it is collected.
const gpu = create(['backend=vulkan']);
const adapter = await gpu.requestAdapter();
if (!adapter) {
    console.log('Dawn finds no adapter');
    process.exit(2);
}
console.log(`Dawn on ${adapter.info.description || adapter.info.device}`);
const wanted = ['shader-f16', 'subgroups'].filter(feature => adapter.features.has(feature));
const limits = {};
for (const name of ['maxStorageBuffersPerShaderStage', 'maxComputeInvocationsPerWorkgroup', 'maxComputeWorkgroupSizeX',
    'maxComputeWorkgroupStorageSize']) limits[name] = adapter.limits[name];
const device = await adapter.requestDevice({ requiredFeatures: wanted, requiredLimits: limits });

const pipelines = new Map();
async function pipeline(step) {
    const key = JSON.stringify([step.name, step.constants]);
    if (!pipelines.has(key)) {
        // naga has subgroups without asking for them.
        const code = /\bsubgroup[A-Z_]/.test(step.code) ? 'enable subgroups;\n' + step.code : step.code;
        const types = ['uniform', ...step.access.map(access => TYPES[access])];
        const layout = device.createBindGroupLayout({
            entries: types.map((type, binding) => ({ binding, visibility: GPUShaderStage.COMPUTE, buffer: { type } })),
        });
        const compute = {
            module: device.createShaderModule({ code }),
            entryPoint: step.entry,
            constants: Object.fromEntries(step.constants),
        };
        const made = device.createComputePipelineAsync({
            layout: device.createPipelineLayout({ bindGroupLayouts: [layout] }), compute,
        });
        pipelines.set(key, made.then(compiled => [compiled, layout]));
    }
    return pipelines.get(key);
}

function buffer(bytes) {
    const made = device.createBuffer({
        size: bytes.length, mappedAtCreation: true,
        usage: Usage.STORAGE | Usage.UNIFORM | Usage.COPY_SRC | Usage.COPY_DST,
    });
    new Uint8Array(made.getMappedRange()).set(bytes);
    made.unmap();
    return made;
}

function half(bits) {
    const [exponent, fraction] = [(bits >> 10) & 31, bits & 1023];
    const size = exponent === 31 ? (fraction ? NaN : Infinity)
        : exponent ? 2 ** (exponent - 15) * (1 + fraction / 1024) : 2 ** -24 * fraction;
    return bits >> 15 ? -size : size;
}

async function read(source, offset, bytes) {
    const staging = device.createBuffer({ size: bytes, usage: Usage.MAP_READ | Usage.COPY_DST });
    const encoder = device.createCommandEncoder();
    encoder.copyBufferToBuffer(source, offset, staging, 0, bytes);
    device.queue.submit([encoder.finish()]);
    await staging.mapAsync(GPUMapMode.READ);
    const copy = staging.getMappedRange().slice(0);
    staging.destroy();
    return copy;
}

// The largest error over what is allowed.
async function replay({ program, results }) {
    device.pushErrorScope('validation');
    const buffers = program.buffers.map(base64 => buffer(Buffer.from(base64, 'base64')));
    const made = [...buffers];
    const encoder = device.createCommandEncoder();
    for (const step of program.steps) {
        const [compiled, layout] = await pipeline(step);
        const parameters = buffer(new Uint8Array(new Uint32Array(step.parameters).buffer));
        made.push(parameters);
        const blocks = [{ buffer: parameters }];
        for (const [number, offset, size] of step.blocks) blocks.push({ buffer: buffers[number], offset, size });
        const pass = encoder.beginComputePass();
        pass.setPipeline(compiled);
        pass.setBindGroup(0, device.createBindGroup({
            layout, entries: blocks.map((resource, binding) => ({ binding, resource })),
        }));
        pass.dispatchWorkgroups(step.groups);
        pass.end();
    }
    device.queue.submit([encoder.finish()]);
    const error = await device.popErrorScope();
    if (error) throw new Error(error.message);
    let worst = 0;
    for (const { place: [number, offset, bytes], type, wanted, nmse } of results) {
        const content = await read(buffers[number], offset, bytes);
        const got = type === 'f16' ? Array.from(new Uint16Array(content), half) : new Float32Array(content);
        let [errors, sizes] = [0, 0];
        wanted.forEach((want, i) => {
            errors += (got[i] - want) ** 2;
            sizes += want ** 2;
        });
        const over = errors === 0 ? 0 : errors / sizes / nmse;
        worst = over <= worst ? worst : over; // NaN stays
    }
    made.forEach(one => one.destroy());
    return worst;
}

let wrong = 0;
let worst = 0;
const files = process.argv.slice(2);
for (const file of files) {
    const test = JSON.parse(readFileSync(file, 'utf8'));
    try {
        const over = await replay(test);
        if (!(over <= 1)) throw new Error(`error ${over} times what is allowed`);
        worst = Math.max(worst, over);
    } catch (error) {
        wrong++;
        console.log(`${test.name}: ${error.message}`);
    }
}
console.log(`${files.length - wrong} of ${files.length} cases, ${pipelines.size} kernels; worst error ${(100 * worst).toFixed(0)} % of what is allowed`);
device.destroy();
process.exit(gpu && wrong > 0 ? 1 : 0);
