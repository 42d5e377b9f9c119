defmodule Generated.MixProject do
  use Mix.Project

  def project do
    [app: :generated, version: "0.1.0", elixir: "~> 1.14", deps: [{:parts, path: "parts"}]]
  end

  def application, do: [extra_applications: [:logger]]
end
