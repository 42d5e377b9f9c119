defmodule Parts do
  @moduledoc "One call into each kind of dependency."

  @doc "An Elixir package whose macros write the parser while this module compiles."
  def version(text) do
    {:ok, [major, minor], "", _, _, _} = Parts.Version.parse(text)
    {major, minor}
  end

  @doc "An Elixir package that generates its code with macros."
  def stylesheet, do: Makeup.stylesheet()

  @doc "An Elixir package with leex and yecc grammars."
  def html(markdown) do
    {:ok, ast, []} = EarmarkParser.as_ast(markdown)
    ast
  end

  @doc "Two Erlang packages built by rebar3."
  def slug(title), do: title |> :slug.make() |> to_string()

  @doc "A NIF in C and C++."
  def json(term), do: term |> :jiffy.encode() |> IO.iodata_to_binary()

  @doc "A git dependency."
  def stamp, do: Stamp.text()

  @doc "All of them, for a test of the image."
  def report do
    [
      stylesheet: stylesheet(),
      version: version("1.18"),
      html: html("*hi*"),
      slug: slug("Bücher & mehr"),
      json: json(%{env: Application.fetch_env!(:parts, :env)}),
      stamp: stamp()
    ]
  end
end
