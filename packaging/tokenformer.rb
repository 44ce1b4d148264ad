# Homebrew formula. A release fills in its address and the SHA-256 of its source.
class Tokenformer < Formula
  desc "Train and grow TokenFormer language models on any GPU, with WGSL compute shaders"
  homepage "HOMEPAGE"
  url "HOMEPAGE/archive/refs/tags/v0.1.0.tar.gz"
  sha256 "SHA256"
  license any_of: ["MIT", "Apache-2.0"]

  depends_on "rust" => :build

  on_linux do
    depends_on "vulkan-loader"
  end

  def install
    system "cargo", "install", "--profile", "dist", "--features", "parquet", *std_cargo_args
    system bin/"tokenformer", "man", man1
    generate_completions_from_executable(bin/"tokenformer", "completions")
  end

  test do
    assert_match "quickstart", shell_output("#{bin}/tokenformer presets")
  end
end
