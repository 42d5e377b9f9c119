defmodule Parts.MixProject do
  use Mix.Project

  # The git server's address is written here by the test before it commits.
  @stamp_url "@GIT_URL@"

  def project do
    [
      app: :parts,
      version: "0.2.0",
      elixir: "~> 1.14",
      start_permanent: Mix.env() in [:staging, :prod],
      deps: deps()
    ]
  end

  def application do
    [extra_applications: [:logger]]
  end

  defp deps do
    [
      # One module of it goes through a map of atoms while it compiles.
      {:makeup, "~> 1.0"},
      {:nimble_parsec, "~> 1.4"},
      {:earmark_parser, "~> 1.4"},
      {:slug, "~> 1.0"},
      # Its rebar.config asks rebar3 for a plugin that Debian does not carry: the same compiler calls, spelt out.
      {:jiffy, "~> 1.1", compile: jiffy()},
      {:stamp, git: @stamp_url, tag: "v1.0.0"}
    ]
  end

  defp jiffy do
    include = Path.join(:code.root_dir(), "usr/include")

    "sh -ec 'mkdir -p priv ebin; " <>
      "for f in c_src/*.c; do cc -O0 -fPIC -Ic_src -I#{include} -c $f -o $f.o; done; " <>
      "for f in c_src/*.cc c_src/double-conversion/*.cc; do c++ -O0 -fPIC -Ic_src -I#{include} -c $f -o $f.o; done; " <>
      "c++ -shared -o priv/jiffy.so c_src/*.o c_src/double-conversion/*.o; rm c_src/*.o c_src/double-conversion/*.o; " <>
      "erlc -o ebin src/*.erl; cp src/jiffy.app.src ebin/jiffy.app'"
  end
end
