//! What the normal form depends on besides the files.

/// Which step wrote the tree.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Part {
    /// Dependencies. The parent's configuration and lock, which Mix copies into each of their manifests with every
    /// secret in them, are removed.
    Deps,
    /// The app, its path dependencies and umbrella children. Their configuration is kept, because Mix compares it.
    Build,
}

/// What the result depends on besides the tree.
#[derive(Clone, Copy, Debug)]
pub struct NormalizeOptions<'a> {
    /// The modification time of every file, in seconds since 1970.
    pub mtime: i64,
    /// The times from start to end of the step, by the system clock and by the clock that the step saw, in seconds
    /// since 1970: a number in a manifest within one of them is taken for a time.
    pub windows: [(i64, i64); 2],
    /// Which step wrote the tree.
    pub part: Part,
    /// The text of `mix.lock`, or empty: a git URL in it is kept with its user information.
    pub lock: &'a str,
}
