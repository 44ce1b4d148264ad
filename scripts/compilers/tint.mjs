// Gives WGSL files to Tint, the compiler of Dawn and Chromium: one module each. Prints a line for each that is refused, and a
// count; exits with 1 where one was.
//
//   node tint.mjs FILE.wgsl...
import { readFileSync } from 'node:fs';
import { create } from 'webgpu';

// The back end that runs nothing offers every feature and needs no driver. Kept, because Dawn hangs once it is collected.
const gpu = create(['backend=null']);
const adapter = await gpu.requestAdapter();
if (!adapter) {
    console.log('Dawn finds no adapter');
    process.exit(2);
}
const wanted = ['shader-f16', 'subgroups'].filter(feature => adapter.features.has(feature));
const device = await adapter.requestDevice({ requiredFeatures: wanted });
let refused = 0;
let left = 0;
for (const file of process.argv.slice(2)) {
    let code = readFileSync(file, 'utf8');
    // naga has subgroups without asking for them.
    if (/\bsubgroup[A-Z_]/.test(code)) code = 'enable subgroups;\n' + code;
    if (code.includes('enable f16;') && !wanted.includes('shader-f16')) {
        left++;
        continue;
    }
    device.pushErrorScope('validation');
    const module = device.createShaderModule({ code });
    const { messages } = await module.getCompilationInfo();
    const errors = messages.filter(message => message.type === 'error');
    const error = await device.popErrorScope();
    if (errors.length > 0 || error) {
        refused++;
        const [first] = errors;
        console.log(`${file}: ${first ? `${first.lineNum}: ${first.message}` : error.message}`);
    }
}
const all = process.argv.length - 2 - left;
console.log(`${all - refused} of ${all} accepted` + (left > 0 ? `, ${left} left out: this adapter has no f16` : ''));
device.destroy();
process.exit(gpu && refused > 0 ? 1 : 0);
