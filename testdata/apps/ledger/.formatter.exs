[inputs: ["{config,lib,test}/**/*.{ex,exs}", "mix.exs", ".formatter.exs"]]
