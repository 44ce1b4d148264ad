// The type of activations in storage: f32 here, f16 in mixed precision. Kernels compute in f32 either way:
// they read f32(x[i]) and write Real(value).
alias Real = f32;
