//! The screen of `top`, from 80 columns and 24 lines on.
//!
//! Owns what stands where. Must not know where figures come from.

use super::figures::{Figures, HostFigures, PageFigures, SpaceFigures};
use ratatui::Frame;
use ratatui::Terminal;
use ratatui::backend::TestBackend;
use ratatui::layout::{Constraint, Layout, Rect};
use ratatui::style::{Color, Modifier, Style};
use ratatui::text::Line;
use ratatui::widgets::{Cell, Row, Table};

/// Size of a screen that is printed.
const TEXT_SIZE: (u16, u16) = (80, 24);
const KEYS: &str = "q quit   p pause   s sort hosts by name or faults   +/- seconds   up/down hosts";

/// In which order hosts stand.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Order {
    /// By name.
    Name,
    /// Most faults first.
    Faults,
}

/// What is shown, and how.
pub struct View {
    /// The figures.
    pub figures: Figures,
    /// In which order hosts stand.
    pub order: Order,
    /// First host shown.
    pub first: usize,
    /// Whether figures stay as they are.
    pub is_paused: bool,
    /// Time between two looks.
    pub seconds: u64,
    /// Why there are no newer figures.
    pub trouble: Option<String>,
}

impl View {
    /// These figures, hosts by name.
    pub fn new(figures: Figures, seconds: u64) -> Self {
        Self { figures, order: Order::Name, first: 0, is_paused: false, seconds, trouble: None }
    }
}

/// Draws the whole screen.
pub fn draw(frame: &mut Frame<'_>, view: &View) {
    let figures = &view.figures;
    let height = frame.area().height.saturating_sub(4);
    // Hosts get what they need, up to half; spaces and pages share the rest.
    let hosts = (figures.hosts.len() + figures.missing.len() + 1).min(usize::from(height / 2).max(2)) as u16;
    let spaces = (figures.spaces.len() + 1).clamp(2, usize::from((height - hosts.min(height)) / 2).max(2)) as u16;
    let rows = Layout::vertical([
        Constraint::Length(1),
        Constraint::Length(1),
        Constraint::Length(hosts),
        Constraint::Length(1),
        Constraint::Length(spaces),
        Constraint::Length(1),
        Constraint::Min(0),
        Constraint::Length(1),
    ])
    .split(frame.area());
    frame.render_widget(Line::styled(title(view), Style::new().add_modifier(Modifier::BOLD)), rows[0]);
    host_table(frame, rows[2], view);
    space_table(frame, rows[4], &figures.spaces);
    page_table(frame, rows[6], &figures.pages);
    let last = match &view.trouble {
        Some(trouble) => Line::styled(trouble.clone(), Style::new().fg(Color::Red)),
        None => Line::styled(KEYS, Style::new().add_modifier(Modifier::DIM)),
    };
    frame.render_widget(last, rows[7]);
}

/// One screen as text.
pub fn text(view: &View) -> String {
    let rows = view.figures.hosts.len() + view.figures.missing.len();
    let (width, height) = (TEXT_SIZE.0, TEXT_SIZE.1.max(u16::try_from(2 * rows + 14).unwrap_or(u16::MAX)));
    let mut terminal = Terminal::new(TestBackend::new(width, height)).expect("a screen in memory cannot fail");
    terminal.draw(|frame| draw(frame, view)).expect("a screen in memory cannot fail");
    let cells = terminal.backend().buffer().content();
    let lines: Vec<String> = cells
        .chunks(usize::from(width))
        .map(|line| line.iter().map(|cell| cell.symbol()).collect::<String>().trim_end().to_owned())
        .collect();
    // The line of keys is for those who can press them.
    let shown = lines.split_last().map_or(&[][..], |(_, shown)| shown);
    let end = shown.iter().rposition(|line| !line.is_empty()).map_or(0, |last| last + 1);
    shown[..end].join("\n") + "\n"
}

fn title(view: &View) -> String {
    let figures = &view.figures;
    let down = match figures.missing.len() {
        0 => String::new(),
        count => format!(" ({count} missing)"),
    };
    let of_day = figures.taken_unix_ms / 1000 % 86_400;
    let state = if view.is_paused { "paused".to_owned() } else { format!("every {} s", view.seconds) };
    format!(
        "dvm {}   {} hosts{down}   {} spaces   {:02}:{:02}:{:02} UTC   {state}",
        figures.cluster,
        figures.hosts.len() + figures.missing.len(),
        figures.spaces.len(),
        of_day / 3600,
        of_day / 60 % 60,
        of_day % 60
    )
}

fn host_table(frame: &mut Frame<'_>, area: Rect, view: &View) {
    let mut hosts: Vec<&HostFigures> = view.figures.hosts.iter().collect();
    if view.order == Order::Faults {
        hosts.sort_by(|one, other| other.faults_per_s.total_cmp(&one.faults_per_s));
    }
    let host = |host: &HostFigures| {
        let share = host.fast_share.map_or_else(|| "-".to_owned(), |share| format!("{:.0} %", 100.0 * share));
        let memory = format!("{}/{}M", host.memory_used_bytes >> 20, host.memory_limit_bytes >> 20);
        let numbers = [rate(host.faults_per_s), rate(host.remote_per_s), time(host.p50_ns), time(host.p99_ns), share];
        row(&host.name, numbers.into_iter().chain([rate(host.evictions_per_s), memory]))
    };
    let missing = view.figures.missing.iter().map(|(name, reason)| {
        // The reason takes the place of the figures; a cell is cut where the next begins, so it is on a line of its own.
        Row::new([Cell::from(format!("{name}: {reason}"))]).style(Style::new().fg(Color::Red))
    });
    let widths = [12, 9, 9, 9, 9, 6, 9, 10];
    let head = ["HOST", "FAULTS/S", "REMOTE/S", "P50", "P99", "FAST", "EVICT/S", "MEMORY"];
    let visible = usize::from(area.height.saturating_sub(1));
    let skipped = view.first.min(hosts.len().saturating_sub(1));
    let shown = hosts.into_iter().skip(skipped).take(visible).map(host);
    let [top, below] = split(area, (1 + shown.len()) as u16);
    table(frame, top, &head, &widths, shown.collect());
    frame.render_widget(Table::new(missing, [Constraint::Percentage(100)]), below);
}

fn space_table(frame: &mut Frame<'_>, area: Rect, spaces: &[SpaceFigures]) {
    let space = |space: &SpaceFigures| {
        let numbers = [rate(space.faults_per_s), rate(space.remote_per_s), format!("{:.0} s", space.uptime_s)];
        let who = [space.uid.to_string(), space.space.to_string(), space.hosts.join(",")];
        row(&space.program, numbers.into_iter().chain(who))
    };
    let head = ["PROGRAM", "FAULTS/S", "REMOTE/S", "AGE", "USER", "SPACE", "HOSTS"];
    table(frame, area, &head, &[15, 9, 9, 8, 6, 10, 17], spaces.iter().map(space).collect());
}

fn page_table(frame: &mut Frame<'_>, area: Rect, pages: &[PageFigures]) {
    let page = |page: &PageFigures| {
        let numbers = [rate(page.reads_per_s), rate(page.writes_per_s), page.lines.to_string()];
        row(&format!("{:#x}", page.address), numbers.into_iter().chain([page.program.clone(), page.hosts.join(",")]))
    };
    let head = ["HOT PAGE", "READS/S", "WRITES/S", "LINES", "PROGRAM", "HOSTS"];
    table(frame, area, &head, &[18, 9, 9, 6, 16, 17], pages.iter().map(page).collect());
}

fn table(frame: &mut Frame<'_>, area: Rect, head: &[&str], widths: &[u16], rows: Vec<Row<'_>>) {
    let head = row(head.first().copied().unwrap_or_default(), head.iter().skip(1).map(|name| (*name).to_owned()));
    let head = head.style(Style::new().add_modifier(Modifier::REVERSED));
    // The last column takes what is left of the line.
    let last = widths.len().saturating_sub(1);
    let width = |(place, width): (usize, &u16)| if place == last { Constraint::Min(*width) } else { Constraint::Length(*width) };
    frame.render_widget(Table::new(rows, widths.iter().enumerate().map(width)).header(head), area);
}

fn row(name: &str, others: impl Iterator<Item = String>) -> Row<'static> {
    let others = others.map(|text| Cell::from(Line::from(text).right_aligned()));
    Row::new(std::iter::once(Cell::from(name.to_owned())).chain(others))
}

fn split(area: Rect, first: u16) -> [Rect; 2] {
    Layout::vertical([Constraint::Length(first), Constraint::Min(0)]).areas(area)
}

fn rate(per_s: f64) -> String {
    match per_s {
        0.0 => "0".to_owned(),
        few if few < 10.0 => format!("{few:.1}"),
        some if some < 100_000.0 => format!("{some:.0}"),
        many => format!("{:.0}K", many / 1000.0),
    }
}

fn time(ns: Option<u64>) -> String {
    match ns {
        None => "-".to_owned(),
        Some(ns) if ns < 10_000_000 => format!("{:.1} us", ns as f64 / 1e3),
        Some(ns) => format!("{:.0} ms", ns as f64 / 1e6),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn view() -> View {
        let host = |name: &str, faults_per_s: f64| HostFigures {
            name: name.into(),
            faults_per_s,
            remote_per_s: faults_per_s / 4.0,
            p50_ns: (faults_per_s > 0.0).then_some(81_234),
            p99_ns: (faults_per_s > 0.0).then_some(12_345_678),
            fast_share: (faults_per_s > 0.0).then_some(0.874),
            evictions_per_s: 3.5,
            memory_used_bytes: 700 << 20,
            memory_limit_bytes: 6_000 << 20,
        };
        let space = SpaceFigures {
            space: 4_194_311,
            program: "stencil".into(),
            uid: 1000,
            hosts: vec!["node-a".into(), "node-b".into()],
            faults_per_s: 212_345.0,
            remote_per_s: 53_086.0,
            uptime_s: 75.4,
        };
        let page = PageFigures {
            space: 4_194_311,
            program: "stencil".into(),
            address: 0x7f00_3000,
            reads_per_s: 120.0,
            writes_per_s: 33.0,
            lines: 9,
            hosts: vec!["node-a".into(), "node-b".into()],
        };
        let figures = Figures {
            cluster: "lab".into(),
            taken_unix_ms: 1_763_760_000_123,
            interval_ms: 1000,
            hosts: vec![host("node-a", 1234.0), host("node-b", 200_000.0), host("node-c", 0.0)],
            missing: [("node-d".to_owned(), "no sign of life for 2.5 s".to_owned())].into(),
            spaces: vec![space],
            pages: vec![page],
        };
        View::new(figures, 1)
    }

    fn screen(view: &View, width: u16, height: u16) -> String {
        let mut terminal = Terminal::new(TestBackend::new(width, height)).unwrap();
        terminal.draw(|frame| draw(frame, view)).unwrap();
        terminal.backend().to_string()
    }

    fn check(name: &str, golden: &str, view: &View) {
        let shown = screen(view, 80, 24);
        let lines = |text: &str| text.lines().map(|line| line.trim_matches('"').trim_end().to_owned()).collect::<Vec<_>>();
        assert_eq!(lines(&shown), golden.lines().map(str::to_owned).collect::<Vec<_>>(), "{name}:\n{}", lines(&shown).join("\n"));
    }

    #[test]
    fn screens_are_as_they_were() {
        check("busy", include_str!("golden/busy.txt"), &view());
        let paused = View { order: Order::Faults, is_paused: true, trouble: Some("no agent answers".into()), first: 1, ..view() };
        check("paused", include_str!("golden/paused.txt"), &paused);
        check("empty", include_str!("golden/empty.txt"), &View::new(Figures::default(), 2));
    }

    #[test]
    fn any_size_is_drawn() {
        for (width, height) in [(1, 1), (20, 3), (80, 5), (300, 100)] {
            screen(&view(), width, height);
        }
    }

    #[test]
    fn a_printed_screen_ends_without_keys() {
        let text = text(&view());
        assert!(text.starts_with("dvm lab   4 hosts (1 missing)   1 spaces   21:20:00 UTC") && !text.contains("quit"), "{text}");
    }
}
