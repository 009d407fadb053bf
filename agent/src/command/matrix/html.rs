//! The matrix as one page that needs nothing else: no network, and no script to be complete.
//!
//! Owns the markup. Invariant: whatever comes from manifests goes through [`Escaped`].

use std::fmt::{self, Display, Write as _};

use super::words::{self, Reach};
use crate::reach::matrix::{Allowed, End, Kind, Matrix, PROTOCOLS};

const STYLE: &str = include_str!("page.css");
const SCRIPT: &str = include_str!("page.js");

/// More columns than this do not fit on a page of paper: there the list alone is printed.
const MOST_ON_PAPER: usize = 16;

/// Text as it may stand in an element or in an attribute in double quotes.
struct Escaped<T>(T);

impl<T: Display> Display for Escaped<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for char in self.0.to_string().chars() {
            match char {
                '&' => f.write_str("&amp;")?,
                '<' => f.write_str("&lt;")?,
                '>' => f.write_str("&gt;")?,
                '"' => f.write_str("&quot;")?,
                '\'' => f.write_str("&#39;")?,
                other => f.write_char(other)?,
            }
        }
        Ok(())
    }
}

/// Ends that stand under one heading.
struct Group<'a> {
    heading: &'a str,
    /// Their places in the matrix.
    ends: Vec<usize>,
}

/// The page.
pub(super) fn page(matrix: &Matrix, only: Option<&Allowed>, namespaces: &[String]) -> String {
    let groups = groups(matrix);
    [
        head(),
        introduction(matrix, only, namespaces),
        filters(),
        table(matrix, &groups),
        pairs(matrix),
        ends(matrix),
        left_out(matrix),
        format!("<script>\n{SCRIPT}</script>\n</body>\n</html>\n"),
    ]
    .concat()
}

fn head() -> String {
    format!(
        "<!doctype html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n\
         <meta http-equiv=\"Content-Security-Policy\" content=\"default-src 'none'; style-src \
         'unsafe-inline'; script-src 'unsafe-inline'\">\n\
         <meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n\
         <title>Who reaches whom</title>\n<style>\n{STYLE}</style>\n</head>\n<body>\n"
    )
}

fn introduction(matrix: &Matrix, only: Option<&Allowed>, namespaces: &[String]) -> String {
    let pods = matrix.ends.iter().filter(|end| end.kind == Kind::Pod);
    let pods: usize = pods.map(|end| end.members.len()).sum();
    let of = if namespaces.is_empty() {
        String::new()
    } else {
        format!(" of the namespaces {}", namespaces.join(", "))
    };
    let asked = only.map_or_else(String::new, |only| {
        format!("<p>Of all traffic, only <strong>{}</strong> is told.</p>\n", Escaped(only))
    });
    let legend = [
        (Reach::Everything, "everything passes"),
        (Reach::Some, "this alone passes"),
        (Reach::Nothing, "nothing passes"),
        (Reach::Itself, "a pod and itself: everything"),
        (Reach::NoPolicy, "neither is a pod, so no policy is asked"),
        (Reach::NoFamily, "no address family in common"),
    ];
    let legend = legend.map(|(reach, says)| {
        format!("<li class=\"{}\">{} {says}</li>\n", class(reach), reach.sign())
    });
    format!(
        "<h1>Who reaches whom</h1>\n<p>What network policies let pass: rows are sources, columns \
         destinations. {pods} pods{}; those that nothing tells apart share a row. Services are no \
         rows: they are a way to pods.</p>\n{asked}<ul class=\"legend\" aria-label=\"Signs\">\n{}\
         </ul>\n",
        Escaped(of),
        legend.concat()
    )
}

fn filters() -> String {
    let field = |name: &str, says: &str| {
        format!(
            "<label>{says} <input type=\"search\" name=\"{name}\" autocomplete=\"off\"></label>\n"
        )
    };
    format!(
        "<form id=\"filters\" role=\"search\" hidden>\n{}{}{}<button type=\"reset\">All</button>\n\
         <output id=\"shown\"></output>\n</form>\n",
        field("q", "Either end, and whom it reaches"),
        field("from", "From"),
        field("to", "To"),
    )
}

fn table(matrix: &Matrix, groups: &[Group<'_>]) -> String {
    let columns = groups.iter().map(|group| {
        let size = group.ends.len();
        let heading = Escaped(group.heading);
        format!("<th scope=\"colgroup\" colspan=\"{size}\" data-size=\"{size}\"><span>{heading}</span></th>")
    });
    let names = matrix.ends.iter().map(|end| {
        let (whole, short) = (Escaped(&end.name), Escaped(short(end)));
        format!(
            "<th scope=\"col\" data-name=\"{whole}\" title=\"{whole}\"><span>{short}</span></th>"
        )
    });
    let bodies = groups.iter().map(|group| {
        let rows = group.ends.iter().map(|from| row(matrix, *from));
        format!(
            "<tbody>\n<tr><th scope=\"rowgroup\" colspan=\"{}\"><span>{}</span></th></tr>\n{}</tbody>\n",
            matrix.ends.len() + 1,
            Escaped(group.heading),
            rows.collect::<String>()
        )
    });
    let width = if matrix.ends.len() > MOST_ON_PAPER { " wide" } else { "" };
    format!(
        "<div class=\"scroll{width}\" role=\"region\" aria-labelledby=\"caption\" tabindex=\"0\">\n\
         <table id=\"matrix\" class=\"matrix\">\n<caption id=\"caption\">What each source may send \
         each destination</caption>\n<thead>\n<tr><td class=\"corner\"></td>{}</tr>\n\
         <tr><th class=\"corner\" scope=\"col\">from ↓ &nbsp; to →</th>{}</tr>\n</thead>\n{}</table>\n\
         </div>\n",
        columns.collect::<String>(),
        names.collect::<String>(),
        bodies.collect::<String>()
    )
}

fn row(matrix: &Matrix, from: usize) -> String {
    let end = &matrix.ends[from];
    let (whole, short) = (Escaped(&end.name), Escaped(short(end)));
    let mut row = format!("<tr data-name=\"{whole}\"><th scope=\"row\"><span>{short}</span></th>");
    for to in 0..matrix.ends.len() {
        let cell = matrix.cell(from, to);
        let reach = words::reach(cell);
        // Ports are there to be read; of the rest the sign is enough for the eye.
        let hidden = if reach == Reach::Some { "" } else { " class=\"said\"" };
        row += &format!(
            "<td class=\"{}\"><span aria-hidden=\"true\">{}</span>&nbsp;<span data-text{hidden}>{}</span></td>",
            class(reach),
            reach.sign(),
            Escaped(unbroken(&words::text(cell)))
        );
    }
    row + "</tr>\n"
}

/// All of the matrix again, so that paper is wide enough for it.
fn pairs(matrix: &Matrix) -> String {
    let mut rows = String::new();
    for (from, end) in matrix.ends.iter().enumerate() {
        let told = words::row(matrix, from);
        let mut source =
            format!("<th scope=\"row\" rowspan=\"{}\">{}</th>", told.len(), Escaped(&end.name));
        for (cell, names) in told {
            let reach = words::reach(cell);
            rows += &format!(
                "<tr>{source}<td class=\"{}\">{}&nbsp;{}</td><td>{}</td></tr>\n",
                class(reach),
                reach.sign(),
                Escaped(unbroken(&words::text(cell))),
                Escaped(names.join(", "))
            );
            source.clear();
        }
    }
    format!(
        "<section>\n<h2>The same as a list</h2>\n<table class=\"list\">\n<thead><tr>\
         <th scope=\"col\">From</th><th scope=\"col\">May send</th><th scope=\"col\">To</th></tr>\
         </thead>\n<tbody>\n{rows}</tbody>\n</table>\n</section>\n"
    )
}

fn ends(matrix: &Matrix) -> String {
    let rows = matrix.ends.iter().map(|end| {
        let member = |member: &crate::reach::matrix::Member| {
            let addresses: Vec<String> = member.addresses.iter().map(ToString::to_string).collect();
            let stands = match end.kind {
                Kind::Pod | Kind::Node | Kind::Address => addresses.join(", "),
                Kind::Outside | Kind::Block => format!("such as {}", addresses.join(", ")),
            };
            format!("{} ({})", member.name, stands)
        };
        let members: Vec<String> = end.members.iter().map(member).collect();
        format!(
            "<tr><th scope=\"row\">{}</th><td>{}</td><td>{}</td></tr>\n",
            Escaped(&end.name),
            words::kind(end.kind),
            Escaped(members.join("; "))
        )
    });
    format!(
        "<section>\n<h2>Who stands behind the names</h2>\n<p>“outside” is every address that is \
         nobody's and in no block of a policy; a block, its addresses that are nobody's.</p>\n\
         <table class=\"list\">\n<thead><tr><th scope=\"col\">Name</th><th scope=\"col\">Kind</th>\
         <th scope=\"col\">Who, and addresses</th></tr></thead>\n<tbody>\n{}</tbody>\n</table>\n\
         </section>\n",
        rows.collect::<String>()
    )
}

fn left_out(matrix: &Matrix) -> String {
    if matrix.left_out.is_empty() {
        return String::new();
    }
    let items = matrix.left_out.iter().map(|left_out| {
        format!("<li>{}: {}</li>\n", Escaped(&left_out.name), Escaped(&left_out.why))
    });
    format!("<section>\n<h2>Not shown</h2>\n<ul>\n{}</ul>\n</section>\n", items.collect::<String>())
}

fn groups(matrix: &Matrix) -> Vec<Group<'_>> {
    let mut groups: Vec<Group<'_>> = Vec::new();
    for (place, end) in matrix.ends.iter().enumerate() {
        let heading = match (end.kind, &end.namespace) {
            (Kind::Pod, Some(namespace)) => namespace,
            (Kind::Pod, None) => "Pods",
            (Kind::Node, _) => "Nodes",
            (Kind::Outside | Kind::Block | Kind::Address, _) => "Outside",
        };
        match groups.last_mut() {
            Some(group) if group.heading == heading => group.ends.push(place),
            Some(_) | None => groups.push(Group { heading, ends: vec![place] }),
        }
    }
    groups
}

/// A name without what the heading says.
fn short(end: &End) -> &str {
    let namespace = end.namespace.as_deref().unwrap_or_default();
    end.name.strip_prefix(namespace).and_then(|name| name.strip_prefix('/')).unwrap_or(&end.name)
}

/// Protocol and port are never on two lines; families are.
fn unbroken(text: &str) -> String {
    PROTOCOLS.iter().fold(text.replace("; ", ";\n"), |text, protocol| {
        text.replace(&format!("{protocol} "), &format!("{protocol}\u{a0}"))
            .replace(&format!("all {protocol}"), &format!("all\u{a0}{protocol}"))
    })
}

const fn class(reach: Reach) -> &'static str {
    match reach {
        Reach::Everything => "all",
        Reach::Some => "some",
        Reach::Nothing => "none",
        Reach::Itself | Reach::NoPolicy | Reach::NoFamily => "na",
    }
}
