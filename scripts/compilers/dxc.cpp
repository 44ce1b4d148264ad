// Compiles HLSL files to DXIL with libdxcompiler, as wgpu asks for on DX12. Prints a line for each that fails; exits with 1
// then. The first line of a file is a comment that names its entry point.
//
//   dxc FILE.hlsl...
#include "WinAdapter.h"

#include "dxcapi.h"

#include <cstdio>
#include <fstream>
#include <iterator>
#include <string>
#include <vector>

static std::string read(const char *path) {
    std::ifstream file(path, std::ios::binary);
    return {std::istreambuf_iterator<char>(file), {}};
}

// What the compiler says against a file; empty where it compiles.
static std::string complaint(IDxcCompiler3 *compiler, const std::string &text) {
    const size_t end = text.find('\n');
    if (text.compare(0, 3, "// ") != 0 || end == std::string::npos) return "the first line names no entry point";
    const std::wstring entry(text.begin() + 3, text.begin() + end);
    const wchar_t *arguments[] = {L"-E", entry.c_str(), L"-T", L"cs_6_6", L"-HV", L"2018", L"-enable-16bit-types",
                                  L"-Qstrip_debug", L"-Ges"};
    const DxcBuffer source = {text.data(), text.size(), DXC_CP_UTF8};
    IDxcResult *result = nullptr;
    HRESULT status = compiler->Compile(&source, arguments, sizeof arguments / sizeof *arguments, nullptr, __uuidof(IDxcResult),
                                       reinterpret_cast<void **>(&result));
    if (FAILED(status) || result == nullptr) return "the compiler did not run";
    std::string said;
    HRESULT compiled = E_FAIL;
    if (FAILED(result->GetStatus(&compiled)) || FAILED(compiled)) {
        IDxcBlobEncoding *errors = nullptr;
        if (SUCCEEDED(result->GetErrorBuffer(&errors)) && errors != nullptr) {
            said.assign(static_cast<const char *>(errors->GetBufferPointer()), errors->GetBufferSize());
            errors->Release();
        }
        if (said.empty()) said = "no reason given";
    }
    result->Release();
    return said;
}

int main(int count, char **files) {
    IDxcCompiler3 *compiler = nullptr;
    if (FAILED(DxcCreateInstance(CLSID_DxcCompiler, __uuidof(IDxcCompiler3), reinterpret_cast<void **>(&compiler)))) {
        std::fprintf(stderr, "no compiler could be made\n");
        return 2;
    }
    int failed = 0;
    for (int i = 1; i < count; i++) {
        const std::string said = complaint(compiler, read(files[i]));
        if (!said.empty()) {
            std::printf("%s: %s\n", files[i], said.c_str());
            failed++;
        }
    }
    compiler->Release();
    return failed == 0 ? 0 : 1;
}
