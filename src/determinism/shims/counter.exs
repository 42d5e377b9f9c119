# Elixir's compiler numbers the variables of macros with `elixir_module:next_counter/1`. Outside of the module that is being
# compiled it takes `erlang:unique_integer()`, which depends on what all schedulers did before; LiveView and Ecto get such
# numbers into their code. Here the same module is written once more with a number that depends on the process and the
# file alone: every file is compiled by a process of its own.
[out] = System.argv()

number =
  ~c"""
  number(Module) ->
      Nth = case erlang:get(phial_counter) of undefined -> 1; Last -> Last + 1 end,
      erlang:put(phial_counter, Nth),
      File = case erlang:get(elixir_compiler_file) of undefined -> erlang:get(elixir_compiler_info); Name -> Name end,
      Of = case File of Text when is_binary(Text) -> Text; _ -> none end,
      -(erlang:phash2({Module, Of}) bsl 28) - Nth.
  """

{:ok, tokens, _} = :erl_scan.string(number)
{:ok, added} = :erl_parse.parse_form(tokens)

replace = fn replace, term, module ->
  case term do
    {:call, at, {:remote, _, {:atom, _, :erlang}, {:atom, _, :unique_integer}}, []} ->
      {:call, at, {:atom, at, :number}, [module]}

    tuple when is_tuple(tuple) ->
      tuple |> Tuple.to_list() |> Enum.map(&replace.(replace, &1, module)) |> List.to_tuple()

    list when is_list(list) ->
      Enum.map(list, &replace.(replace, &1, module))

    other ->
      other
  end
end

clause = fn {:clause, at, [argument], guards, body} ->
  {:clause, at, [argument], guards, replace.(replace, body, argument)}
end

with path when is_list(path) <- :code.which(:elixir_module),
     {:ok, {_, [abstract_code: {:raw_abstract_v1, forms}]}} <- :beam_lib.chunks(path, [:abstract_code]) do
  counter? = &match?({:function, _, :next_counter, 1, _}, &1)

  changed =
    for form <- forms do
      if counter?.(form), do: put_elem(form, 4, Enum.map(elem(form, 4), clause)), else: form
    end

  if changed != forms do
    {before, [last]} = Enum.split(changed, -1)
    {:ok, :elixir_module, beam} = :compile.forms(before ++ [added, last], [:deterministic])
    File.write!(out, beam)
  end
end
