//! Pictures, films and sound.
//!
//! Owns the arguments of the programs, the pictures they are given, and what of their results is the time they were made at. Must
//! not know how they are run.

use super::{Bed, Need, PLAIN, Program};
use anyhow::{Context, Result};
use std::fs;
use std::path::Path;

const FILM: &str = "film.y4m";
const PICTURE: &str = "picture.ppm";
const WIDTH: usize = 320;
const HEIGHT: usize = 240;
const FRAMES: usize = 20;

const FFMPEG: Program = Program {
    command: Some("ffmpeg"),
    needs: &[Need::Program("ffmpeg")],
    environment: &[("AV_LOG_FORCE_NOCOLOR", "1")],
    ..PLAIN
};

pub const PROGRAMS: &[Program] = &[
    Program {
        name: "povray",
        arguments: &["+Iscene.pov", "+O-", "+FP", "+W240", "+H180", "+WT4", "-D", "-GA"],
        prepare: put_scene,
        normalise: without_date,
        needs: &[Need::Program("povray")],
        ..PLAIN
    },
    Program {
        name: "ffmpeg-x264",
        arguments: &[
            "-v",
            "error",
            "-f",
            "lavfi",
            "-i",
            "testsrc2=size=320x240:rate=25:duration=1.2",
            "-c:v",
            "libx264",
            "-threads",
            "4",
            "-preset",
            "fast",
            "-flags",
            "+bitexact",
            "-fflags",
            "+bitexact",
            "-f",
            "h264",
            "-",
        ],
        ..FFMPEG
    },
    Program {
        name: "ffmpeg-filters",
        arguments: &[
            "-v",
            "error",
            "-filter_threads",
            "4",
            "-f",
            "lavfi",
            "-i",
            "testsrc2=size=320x240:rate=25:duration=1",
            "-vf",
            "boxblur=3,scale=480:360,hue=s=2",
            "-c:v",
            "mpeg4",
            "-threads",
            "4",
            "-flags",
            "+bitexact",
            "-fflags",
            "+bitexact",
            "-f",
            "m4v",
            "-",
        ],
        ..FFMPEG
    },
    Program {
        name: "x265",
        arguments: &[
            "--log-level",
            "error",
            "--no-progress",
            "--y4m",
            "--input",
            FILM,
            "--pools",
            "6",
            "--frame-threads",
            "3",
            "--no-info",
            "--preset",
            "fast",
            "-o",
            "/dev/stdout",
        ],
        prepare: put_film,
        needs: &[Need::Program("x265")],
        ..PLAIN
    },
    Program {
        name: "vpxenc",
        arguments: &[
            "--quiet",
            "--codec=vp9",
            "--threads=4",
            "--row-mt=1",
            "--tile-columns=2",
            "--cpu-used=2",
            "--good",
            "--ivf",
            "-o",
            "-",
            FILM,
        ],
        prepare: put_film,
        needs: &[Need::Program("vpxenc")],
        ..PLAIN
    },
    Program {
        name: "aomenc",
        arguments: &[
            "-q",
            "--threads=6",
            "--row-mt=1",
            "--cpu-used=8",
            "--limit=5",
            "--tile-columns=1",
            "--ivf",
            "-o",
            "-",
            FILM,
        ],
        prepare: put_film,
        needs: &[Need::Program("aomenc")],
        ..PLAIN
    },
    Program {
        name: "cwebp",
        arguments: &["-quiet", "-mt", "-lossless", "-q", "100", "-m", "6", PICTURE, "-o", "-"],
        // It has two threads.
        hosts: &[2],
        prepare: put_picture,
        needs: &[Need::Program("cwebp")],
        ..PLAIN
    },
    Program {
        name: "sox",
        arguments: &[
            "--multi-threaded",
            "-R",
            "-n",
            "-t",
            "raw",
            "-r",
            "44100",
            "-b",
            "16",
            "-e",
            "signed",
            "-c",
            "4",
            "-",
            "synth",
            "3",
            "sine",
            "300-3300",
            "sine",
            "200",
            "sine",
            "100",
            "sine",
            "50",
            "phaser",
            "0.6",
            "0.66",
            "3",
            "0.6",
            "0.5",
            "-t",
        ],
        needs: &[Need::Program("sox")],
        ..PLAIN
    },
];

/// A film of waves that wander, in frames of 4:2:0.
fn put_film(_: &mut Bed<'_>, directory: &Path) -> Result<()> {
    let mut film = format!("YUV4MPEG2 W{WIDTH} H{HEIGHT} F25:1 Ip A1:1 C420jpeg\n").into_bytes();
    for frame in 0..FRAMES {
        film.extend_from_slice(b"FRAME\n");
        for (plane, scale) in [1, 2, 2].into_iter().enumerate() {
            film.extend(plane_of(frame + plane * 40, WIDTH / scale, HEIGHT / scale));
        }
    }
    Ok(fs::write(directory.join(FILM), film)?)
}

/// A picture of the same waves, each colour at another time.
fn put_picture(_: &mut Bed<'_>, directory: &Path) -> Result<()> {
    let mut picture = format!("P6\n{WIDTH} {HEIGHT}\n255\n").into_bytes();
    let colours: Vec<Vec<u8>> = (0..3).map(|colour| plane_of(colour * 9, WIDTH, HEIGHT)).collect();
    picture.extend((0..WIDTH * HEIGHT).flat_map(|at| colours.iter().filter_map(move |colour| colour.get(at).copied())));
    Ok(fs::write(directory.join(PICTURE), picture)?)
}

fn plane_of(time: usize, width: usize, height: usize) -> Vec<u8> {
    let at = |x: usize, y: usize| {
        let wave = (x + 3 * time) * (y + time) / 29 + (x ^ (y + 2 * time)) / 3;
        wave.to_le_bytes()[0]
    };
    (0..height).flat_map(|y| (0..width).map(move |x| at(x, y))).collect()
}

fn put_scene(bed: &mut Bed<'_>, directory: &Path) -> Result<()> {
    let scene = bed.workshop.scene()?;
    fs::copy(scene, directory.join("scene.pov"))?;
    Ok(())
}

/// Takes the comments out of a PPM file's head: one of them is the time of rendering.
fn without_date(path: &Path) -> Result<()> {
    let bytes = fs::read(path)?;
    let (mut plain, mut rest, mut lines) = (Vec::with_capacity(bytes.len()), bytes.as_slice(), 0);
    // The head is three lines: format, size, largest value.
    while lines < 3 {
        let end = rest.iter().position(|byte| *byte == b'\n').context("the picture ends within its head")?;
        let (line, after) = rest.split_at(end + 1);
        if !line.starts_with(b"#") {
            plain.extend_from_slice(line);
            lines += 1;
        }
        rest = after;
    }
    plain.extend_from_slice(rest);
    Ok(fs::write(path, plain)?)
}
