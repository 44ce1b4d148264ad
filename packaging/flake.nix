# `nix build ./packaging`: the program with its manual pages and completions; the Vulkan loader is found at run time.
{
  inputs.nixpkgs.url = "github:NixOS/nixpkgs/nixos-unstable";

  outputs =
    { self, nixpkgs }:
    let
      systems = [ "x86_64-linux" "aarch64-linux" "aarch64-darwin" ];
      each = nixpkgs.lib.genAttrs systems;
    in
    {
      packages = each (
        system:
        let
          pkgs = nixpkgs.legacyPackages.${system};
        in
        {
          default = pkgs.rustPlatform.buildRustPackage {
            pname = "tokenformer";
            version = "0.1.0";
            src = pkgs.lib.cleanSource ./..;
            cargoLock.lockFile = ../Cargo.lock;
            buildType = "dist";
            buildFeatures = [ "parquet" ];
            # They need an adapter.
            doCheck = false;
            nativeBuildInputs = [ pkgs.installShellFiles pkgs.makeWrapper ];
            postInstall = ''
              $out/bin/tokenformer man man1
              installManPage man1/*
              for shell in bash fish zsh; do
                $out/bin/tokenformer completions $shell > completions.$shell
              done
              installShellCompletion --cmd tokenformer --bash completions.bash --fish completions.fish --zsh completions.zsh
            ''
            + pkgs.lib.optionalString pkgs.stdenv.isLinux ''
              wrapProgram $out/bin/tokenformer \
                --prefix LD_LIBRARY_PATH : ${pkgs.lib.makeLibraryPath [ pkgs.vulkan-loader pkgs.libGL ]}
            '';
            meta.mainProgram = "tokenformer";
          };
        }
      );
    };
}
