defmodule Stress.Words do
  @moduledoc "Clauses made from files, as gettext makes them: one module for each language, files recorded as resources."

  @files Path.wildcard(Path.join([__DIR__, "../../priv/words", "*.txt"]))

  for file <- @files do
    @external_resource file
    language = Path.basename(file, ".txt")

    pairs =
      for line <- String.split(File.read!(file), "\n", trim: true), into: %{} do
        [key, text] = String.split(line, " = ")
        {String.to_atom(key), text}
      end

    defmodule Module.concat(__MODULE__, String.upcase(language)) do
      for {key, text} <- pairs do
        def word(unquote(key)), do: unquote(text)
      end

      def all, do: unquote(Macro.escape(pairs))
    end

    def word(unquote(language), key), do: unquote(Module.concat(__MODULE__, String.upcase(language))).word(key)
  end

  def languages, do: unquote(Enum.map(@files, &Path.basename(&1, ".txt")))
end
