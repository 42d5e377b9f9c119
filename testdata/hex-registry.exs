# The inner half of `testdata/hex-registry`, run by Elixir in the root filesystem: src/* become tarballs, and those a
# registry signed with a key made here.

Mix.start()
true = Code.ensure_loaded?(:mix_hex_tarball)
File.mkdir_p!("public/tarballs")

# An Erlang package says in its .app.src what Hex wants to know; its requirements stand in rebar.config.
rebar = fn dir ->
  [app_src] = Path.wildcard(Path.join(dir, "src/*.app.src"))
  {:ok, [{:application, app, about}]} = :file.consult(app_src)

  deps =
    case :file.consult(Path.join(dir, "rebar.config")) do
      {:ok, terms} -> Keyword.get(terms, :deps, [])
      {:error, :enoent} -> []
    end

  files =
    for pattern <- ~w(src/** include/** c_src/** priv/** rebar.config rebar.config.script Makefile README.md LICENSE),
        path <- Path.wildcard(Path.join(dir, pattern)),
        File.regular?(path),
        do: Path.relative_to(path, dir)

  files = files |> Enum.uniq() |> Enum.sort()
  name = Atom.to_string(app)

  metadata = %{
    "name" => name,
    "app" => name,
    "version" => to_string(about[:vsn]),
    "description" => to_string(about[:description]),
    "licenses" => Enum.map(about[:licenses] || [], &to_string/1),
    "build_tools" => ["rebar3"],
    "files" => files,
    "requirements" =>
      for {dep, requirement} <- deps do
        %{
          "name" => Atom.to_string(dep),
          "app" => Atom.to_string(dep),
          "requirement" => to_string(requirement),
          "optional" => false,
          "repository" => "hexpm"
        }
      end
  }

  contents = for path <- files, do: {to_charlist(path), File.read!(Path.join(dir, path))}
  {:ok, %{tarball: tarball}} = :mix_hex_tarball.create(metadata, contents)
  File.write!("public/tarballs/#{name}-#{metadata["version"]}.tar", tarball)
end

run = fn args, dir ->
  case System.cmd("mix", args, cd: dir, stderr_to_stdout: true, env: [{"MIX_ENV", "prod"}]) do
    {_, 0} -> :ok
    {output, status} -> raise "mix #{Enum.join(args, " ")} in #{dir} ended with #{status}:\n#{output}"
  end
end

mix = fn dir ->
  run.(["hex.build", "-o", "package.tar"], dir)
  {:ok, %{metadata: about}} = :mix_hex_tarball.unpack(File.read!(Path.join(dir, "package.tar")), :memory)
  File.rename!(Path.join(dir, "package.tar"), "public/tarballs/#{about["name"]}-#{about["version"]}.tar")
end

for dir <- Enum.sort(Path.wildcard("src/*")) do
  if File.exists?(Path.join(dir, "mix.exs")), do: mix.(dir), else: rebar.(dir)
end

# One package has a later version, too, which differs in nothing else.
for later <- Path.wildcard("src/elixir-earmark-parser") do
  about = File.read!(Path.join(later, "mix.exs"))
  [version, minor, patch] = Regex.run(~r/(\d+\.\d+)\.(\d+)/, hd(Regex.run(~r/version[: ]+"\d+\.\d+\.\d+"/, about)))
  about = String.replace(about, version, "#{minor}.#{String.to_integer(patch) + 1}")
  File.write!(Path.join(later, "mix.exs"), about)
  mix.(later)
end

key = :public_key.generate_key({:rsa, 2048, 65537})
File.write!("private_key.pem", :public_key.pem_encode([:public_key.pem_entry_encode(:RSAPrivateKey, key)]))
run.(~w(hex.registry build public --name=hexpm --private-key=private_key.pem), ".")
File.rm!("private_key.pem")
