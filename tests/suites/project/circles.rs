//! No circle of modules in any crate: what a module needs can be read without reading the module itself.
//!
//! A module is taken with all that is inside it, and compared with its siblings: a child that extends a type of its parent
//! is a part of it. So a circle is a set of modules of one folder that need each other. `cargo modules dependencies
//! --acyclic` counts the way from a child to its parent as well, which no program of more than one file would pass.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

use syn::visit::{self, Visit};
use syn::{Item, ItemMod, ItemUse, UseTree, Visibility};

/// The sources of each crate.
const CRATES: [&str; 9] = [
    "core/src",
    "adapters/amqp/src",
    "adapters/blocking/src",
    "adapters/client/src",
    "adapters/hub/src",
    "adapters/tokio/src",
    "benches/src",
    "tests/testkit/src",
    "tests/world/src",
];

/// The way from the root of a crate to a module, or to an item in one.
type Names = Vec<String>;

/// What a file says of other modules, not resolved yet.
#[derive(Default)]
struct Source {
    /// Paths that may lead to other modules.
    paths: Vec<Names>,
    /// What it gives on under a name of its own: `pub use`.
    exports: BTreeMap<String, Names>,
}

/// Collects the paths of one file.
struct Collector<'a> {
    module: Names,
    source: &'a mut Source,
}

impl Collector<'_> {
    /// The path from the root, if it starts there or here.
    fn absolute(&self, path: &[String]) -> Names {
        let mut names = self.module.clone();
        let mut rest = path;
        match rest.first().map(String::as_str) {
            Some("crate") => {
                names.clear();
                rest = &rest[1..];
            }
            Some("self") => rest = &rest[1..],
            _ => {
                while rest.first().is_some_and(|name| name == "super") {
                    names.pop();
                    rest = &rest[1..];
                }
            }
        }
        names.extend_from_slice(rest);
        names
    }

    fn tree(&mut self, prefix: &[String], tree: &UseTree, exported: bool) {
        let with = |name: &syn::Ident| [prefix, &[name.to_string()]].concat();
        let (path, name) = match tree {
            UseTree::Path(path) => return self.tree(&with(&path.ident), &path.tree, exported),
            UseTree::Group(group) => {
                return group.items.iter().for_each(|tree| self.tree(prefix, tree, exported));
            }
            UseTree::Name(name) => (with(&name.ident), name.ident.to_string()),
            UseTree::Rename(rename) => (with(&rename.ident), rename.rename.to_string()),
            UseTree::Glob(_) => (prefix.to_vec(), "*".to_owned()),
        };
        let path = self.absolute(&path);
        if exported {
            self.source.exports.insert(name, path.clone());
        }
        self.source.paths.push(path);
    }
}

impl<'ast> Visit<'ast> for Collector<'_> {
    fn visit_item(&mut self, item: &'ast Item) {
        if !is_test(item) {
            visit::visit_item(self, item);
        }
    }

    fn visit_item_mod(&mut self, item: &'ast ItemMod) {
        if item.content.is_some() {
            self.module.push(item.ident.to_string());
            visit::visit_item_mod(self, item);
            self.module.pop();
        }
    }

    fn visit_item_use(&mut self, item: &'ast ItemUse) {
        self.tree(&[], &item.tree, !matches!(item.vis, Visibility::Inherited));
    }

    fn visit_path(&mut self, path: &'ast syn::Path) {
        let names: Names = path.segments.iter().map(|segment| segment.ident.to_string()).collect();
        if names.len() > 1 {
            self.source.paths.push(self.absolute(&names));
        }
        visit::visit_path(self, path);
    }
}

/// Whether it is there for tests alone.
fn is_test(item: &Item) -> bool {
    let attributes = match item {
        Item::Mod(item) => &item.attrs,
        Item::Use(item) => &item.attrs,
        Item::Fn(item) => &item.attrs,
        Item::Impl(item) => &item.attrs,
        _ => return false,
    };
    attributes.iter().any(|attribute| {
        attribute.path().is_ident("cfg")
            && attribute.parse_args::<syn::Path>().is_ok_and(|what| what.is_ident("test"))
    })
}

/// A crate: its modules by their names from the root.
struct Crate {
    modules: BTreeMap<Names, Source>,
}

impl Crate {
    fn read(folder: &Path) -> Self {
        let mut modules = BTreeMap::new();
        let mut test_modules = BTreeSet::new();
        for path in files(folder) {
            let module = module_of(path.strip_prefix(folder).expect("it is in there"));
            let text = fs::read_to_string(&path).expect("sources are text");
            let file = syn::parse_file(&text).unwrap_or_else(|why| unreachable!("{}: {why}", path.display()));
            let tests = file.items.iter().filter(|item| is_test(item));
            test_modules.extend(tests.filter_map(|item| match item {
                Item::Mod(item) => Some([&module[..], &[item.ident.to_string()]].concat()),
                _ => None,
            }));
            let mut source = Source::default();
            Collector { module: module.clone(), source: &mut source }.visit_file(&file);
            modules.insert(module, source);
        }
        modules.retain(|module, _| !test_modules.iter().any(|tests| module.starts_with(tests)));
        Self { modules }
    }

    /// The module that a path leads to, through `pub use`.
    fn target(&self, path: &[String]) -> Names {
        let mut path = path.to_vec();
        // So many re-exports behind each other, nobody writes.
        for _ in 0..8 {
            let length = (0..=path.len()).rev().find(|length| self.modules.contains_key(&path[..*length]));
            let (module, rest) = path.split_at(length.unwrap_or(0));
            let exports = self.modules.get(module).map(|source| &source.exports);
            match rest.first().and_then(|name| exports?.get(name)) {
                Some(original) if *original != path => path = [original, &rest[1..]].concat(),
                _ => return module.to_vec(),
            }
        }
        path
    }

    /// Which sibling needs which: both by their names from the root.
    fn edges(&self) -> BTreeMap<Names, BTreeSet<Names>> {
        let mut edges: BTreeMap<Names, BTreeSet<Names>> = BTreeMap::new();
        for (from, source) in &self.modules {
            for to in source.paths.iter().map(|path| self.target(path)) {
                let common = from.iter().zip(&to).take_while(|(one, other)| one == other).count();
                if common < from.len() && common < to.len() {
                    edges.entry(from[..=common].to_vec()).or_default().insert(to[..=common].to_vec());
                }
            }
        }
        edges
    }

    /// Which file of a circle names what of it, a line each.
    fn uses_within(&self, circle: &[String]) -> String {
        let is_in = |names: &[String]| {
            let names = names.join("::");
            circle.iter().find(|module| names == **module || names.starts_with(&format!("{module}::")))
        };
        let mut lines = BTreeSet::new();
        for (from, source) in &self.modules {
            for path in &source.paths {
                let to = self.target(path);
                if let (Some(one), Some(other)) = (is_in(from), is_in(&to))
                    && one != other
                {
                    lines.insert(format!("    {} names {}\n", from.join("::"), path.join("::")));
                }
            }
        }
        lines.into_iter().collect()
    }

    /// The sets of siblings that need each other.
    fn circles(&self) -> BTreeSet<Vec<String>> {
        let edges = self.edges();
        let reached = |start: &Names| {
            let (mut seen, mut next) = (BTreeSet::new(), vec![start]);
            while let Some(module) = next.pop() {
                next.extend(edges.get(module).into_iter().flatten().filter(|to| seen.insert((*to).clone())));
            }
            seen
        };
        let all: BTreeMap<_, _> = edges.keys().map(|module| (module, reached(module))).collect();
        let circle = |(module, reached): (&&Names, &BTreeSet<Names>)| {
            reached.contains(*module).then(|| {
                let others =
                    reached.iter().filter(|other| all.get(other).is_some_and(|back| back.contains(*module)));
                others.map(|names| names.join("::")).collect()
            })
        };
        all.iter().filter_map(circle).collect()
    }
}

/// All Rust files below a folder that belong to its library.
fn files(folder: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(folder).unwrap_or_else(|why| unreachable!("{}: {why}", folder.display()));
    let paths = entries.map(|entry| entry.expect("the folder can be read").path());
    paths
        .flat_map(|path| match path.is_dir() {
            true if path.ends_with("bin") => Vec::new(),
            true => files(&path),
            false => vec![path],
        })
        .filter(|path| {
            path.extension().is_some_and(|extension| extension == "rs") && !path.ends_with("main.rs")
        })
        .collect()
}

fn module_of(file: &Path) -> Names {
    let file = file.with_extension("");
    let names = file.iter().map(|name| name.to_string_lossy().into_owned());
    names.filter(|name| name != "mod" && name != "lib").collect()
}

#[test]
fn no_modules_need_each_other() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    let mut found = String::new();
    for sources in CRATES {
        let this = Crate::read(&root.join(sources));
        for circle in this.circles() {
            found += &format!("{sources}: {}\n", circle.join(" - "));
            found += &this.uses_within(&circle);
        }
    }
    assert!(found.is_empty(), "move what both need into a module of its own:\n{found}");
}

#[test]
fn a_circle_is_found_through_re_exports_and_from_inside_of_modules() {
    let module = |name: &str, text: &str| {
        let module: Names = name.split("::").filter(|name| !name.is_empty()).map(str::to_owned).collect();
        let mut source = Source::default();
        let file = syn::parse_str(text).expect("it is Rust");
        Collector { module: module.clone(), source: &mut source }.visit_file(&file);
        (module, source)
    };
    let modules = [
        module("", "pub mod a; pub mod b; pub use b::Thing;"),
        module("a", "mod inner; #[cfg(test)] use crate::c::Never;"),
        module("a::inner", "use super::super::Thing; fn f(thing: &Thing) {}"),
        module("b", "pub struct Thing; fn f() { crate::a::g() }"),
        module("c", "use crate::a::g;"),
    ];
    let found = Crate { modules: modules.into() }.circles();
    assert_eq!(found, BTreeSet::from([vec!["a".to_owned(), "b".to_owned()]]));
}
