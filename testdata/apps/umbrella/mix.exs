defmodule Pair.MixProject do
  use Mix.Project

  def project do
    [apps_path: "apps", version: "0.3.0", start_permanent: Mix.env() in [:staging, :prod], deps: []]
  end
end
