defmodule Right.MixProject do
  use Mix.Project

  def project do
    [
      app: :right,
      version: "0.3.0",
      build_path: "../../_build",
      config_path: "../../config/config.exs",
      deps_path: "../../deps",
      lockfile: "../../mix.lock",
      elixir: "~> 1.14",
      deps: [{:left, in_umbrella: true}, {:shared_parts, path: "../../shared_parts"}]
    ]
  end

  def application, do: [extra_applications: [:logger]]
end
