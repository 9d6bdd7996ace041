//! Products against candle's, in every way of keeping numbers, and every width of instructions alike.

use std::borrow::Cow;

use candle_core::quantized::{GgmlDType, QTensor};
use candle_core::{DType, Device, Tensor};
use half::{bf16, f16};

use super::*;
use crate::backbone::normal;
use crate::seed::Seed;

const BLOCKS: [(GgmlDType, Blocks); 10] = [
    (GgmlDType::Q8_0, Blocks::Q8_0),
    (GgmlDType::Q4_0, Blocks::Q4_0),
    (GgmlDType::Q4_1, Blocks::Q4_1),
    (GgmlDType::Q5_0, Blocks::Q5_0),
    (GgmlDType::Q5_1, Blocks::Q5_1),
    (GgmlDType::Q2K, Blocks::Q2K),
    (GgmlDType::Q3K, Blocks::Q3K),
    (GgmlDType::Q4K, Blocks::Q4K),
    (GgmlDType::Q5K, Blocks::Q5K),
    (GgmlDType::Q6K, Blocks::Q6K),
];

fn numbers(count: usize, seed: u64) -> Vec<f32> {
    normal(&[count], 1.0, Seed::new(seed), &Device::Cpu).unwrap().to_vec1().unwrap()
}

fn product(matrix: Matrix<'_>, x: &[f32], rows: usize) -> Vec<f32> {
    let mut y = vec![0.0; rows * matrix.rows()];
    let target = Target::new(&mut y, matrix.rows());
    let input = Input { x, stride: matrix.width(), count: rows, rounded: None };
    matrix.product(input, &mut Scratch::default(), target);
    y
}

/// candle's product in f64.
fn exact(w: &[f32], x: &[f32], rows: usize, width: usize) -> Vec<f64> {
    let tensor = |v: &[f32]| {
        let t = Tensor::new(v, &Device::Cpu).unwrap().to_dtype(DType::F64).unwrap();
        t.reshape((v.len() / width, width)).unwrap()
    };
    let y = tensor(x).matmul(&tensor(w).t().unwrap()).unwrap();
    assert_eq!(y.dim(0).unwrap(), rows);
    y.flatten_all().unwrap().to_vec1().unwrap()
}

/// Every block of 32 numbers rounded to integers up to 127 and a scale, half to even.
fn rounded(x: &[f32]) -> Vec<f32> {
    let block = |x: &[f32]| -> Vec<f32> {
        let scale = x.iter().fold(0f32, |most, x| most.max(x.abs())) / 127.0;
        x.iter().map(|x| (x / scale).round_ties_even() * scale).collect()
    };
    x.chunks(BLOCK).flat_map(block).collect()
}

#[test]
fn products_are_those_of_candle_and_the_same_in_any_company() {
    for (rows, width) in [(7, 576), (16, 40), (5, 8), (9, 1536), (4, 3), (1, 64), (37, 256)] {
        let w = numbers(rows * width, 1);
        let brains: Vec<bf16> = w.iter().map(|&x| bf16::from_f32(x)).collect();
        let halves: Vec<f16> = w.iter().map(|&x| f16::from_f32(x)).collect();
        let of_brains: Vec<f32> = brains.iter().map(|x| x.to_f32()).collect();
        let of_halves: Vec<f32> = halves.iter().map(|x| x.to_f32()).collect();
        let mut kept = vec![
            (Numbers::F32(&w), w.clone()),
            (Numbers::Bf16(&brains), of_brains),
            (Numbers::F16(&halves), of_halves),
        ];
        let tensor = Tensor::new(w.as_slice(), &Device::Cpu).unwrap();
        let tensor = tensor.reshape((rows, width)).unwrap();
        let quantized: Vec<_> = BLOCKS
            .into_iter()
            .filter(|(dtype, _)| width.is_multiple_of(dtype.block_size()))
            .map(|(dtype, blocks)| (QTensor::quantize(&tensor, dtype).unwrap(), blocks))
            .collect();
        for (tensor, blocks) in &quantized {
            let plain = tensor.dequantize(&Device::Cpu).unwrap().flatten_all().unwrap();
            let Cow::Borrowed(bytes) = tensor.data().unwrap() else { panic!("not on a CPU") };
            let numbers = Numbers::Blocks(*blocks, bytes);
            kept.push((numbers, plain.to_vec1().unwrap()));
        }
        let x = numbers(19 * width, 2);
        for (numbers, plain) in kept {
            let matrix = Matrix::new(numbers, rows, width).unwrap();
            let mut row = vec![0.0; width];
            matrix.row(rows - 1, &mut row);
            assert_eq!(row, plain[(rows - 1) * width..]);
            let all = product(matrix, &x, 19);
            let bound = 2e-6 * width as f64;
            // Products with 8-bit integers are those of rounded numbers, and no less exact.
            let read = if matrix.rounds() { rounded(&x) } else { x.clone() };
            for (found, exact) in all.iter().zip(exact(&plain, &read, 19, width)) {
                assert!((f64::from(*found) - exact).abs() < bound, "{found} {exact}");
            }
            for count in 1..19 {
                let part = product(matrix, &x, count);
                assert_eq!(part, all[..count * rows], "{count} rows of {rows} x {width}");
            }
            let upper = product(matrix.part(rows / 2..rows), &x, 2);
            assert_eq!(upper[..rows - rows / 2], all[rows / 2..rows]);
        }
    }
}

#[test]
fn what_is_asked_for_beside_a_product_is_all_and_changes_nothing() {
    let (w, x, others) = (numbers(37 * 96, 1), numbers(9 * 96, 2), numbers(1000, 3));
    let matrix = Matrix::new(Numbers::F32(&w), 37, 96).unwrap();
    let other = |count: usize| Matrix::new(Numbers::F32(&others[..8 * count]), count, 8).unwrap();
    let mut scratch = Scratch::default();
    for count in [125, 3, 1] {
        scratch.beside.add(&other(count));
    }
    for passes in [1, 7, 30] {
        let mut beside = beside::Beside::default();
        for count in [125, 3, 1] {
            beside.add(&other(count));
        }
        beside.begin(passes);
        for _ in 0..passes {
            let lines = beside.pass(4);
            (0..4).for_each(|_| beside.ask(lines));
        }
        assert_eq!((beside.left(), beside.begun()), (0, 3), "{passes} passes");
    }
    let mut y = vec![0.0; 9 * 37];
    let input = Input { x: &x, stride: 96, count: 9, rounded: None };
    matrix.product(input, &mut scratch, Target::new(&mut y, 37));
    assert_eq!(y, product(matrix, &x, 9));
    assert_eq!((scratch.beside.left(), scratch.beside.begun()), (0, 0));
}

#[test]
fn rounding_is_to_the_nearest_of_255_numbers() {
    let block = |x: &[f32]| {
        let one = Rounded::of(x, x.len(), 1, x.len());
        #[expect(unsafe_code, reason = "tests read the block itself")]
        // SAFETY: nobody writes the row, and it has a block.
        unsafe {
            *one.rows(0, 1).start(0)
        }
    };
    let x = numbers(BLOCK, 9);
    let found = block(&x);
    let largest = x.iter().fold(0f32, |most, x| most.max(x.abs()));
    assert_eq!(found.scale, largest / 127.0);
    assert_eq!(found.integers.iter().map(|q| q.unsigned_abs()).max(), Some(127));
    let sum = |integers: &[i8]| integers.iter().map(|&q| i32::from(q)).sum::<i32>();
    assert_eq!(found.offset, -128 * sum(&found.integers));
    assert_eq!(found.half, -128 * sum(&found.integers[..16]));
    assert_eq!(found.sum, found.scale * sum(&found.integers) as f32);
    for (&integer, x) in found.integers.iter().zip(&x) {
        assert!((f32::from(integer) * found.scale - x).abs() <= 0.5001 * found.scale);
    }
    // Halves go to the even neighbour; zeros and numbers next to nothing are no division by zero.
    let mut x = [0.0; BLOCK];
    assert_eq!((block(&x).scale, block(&x).integers), (0.0, [0; BLOCK]));
    x[..5].copy_from_slice(&[127.0, 2.5, 3.5, -2.5, -127.0]);
    assert_eq!(block(&x).integers[..6], [127, 2, 4, -2, -127, 0]);
    assert_eq!(block(&[f32::from_bits(1); BLOCK]).integers, [0; BLOCK]);
    // What is not finite stays so.
    for bad in [f32::NAN, f32::INFINITY] {
        x[7] = bad;
        assert!(!block(&x).scale.is_finite());
    }
}

#[test]
fn every_width_of_instructions_multiplies_integers_alike() {
    for ((dtype, kept), (rows, width, count)) in BLOCKS
        .into_iter()
        .flat_map(|of| [(37, 768, 1), (16, 256, 11), (5, 512, 9)].map(|x| (of, x)))
    {
        // Any bytes, -128 among them, under scales from 2⁻¹⁴ to 2.
        let size = dtype.type_size();
        let scales: &[usize] = match dtype {
            GgmlDType::Q2K => &[80, 82],
            GgmlDType::Q3K => &[108],
            GgmlDType::Q6K => &[208],
            _ => &[0, 2],
        };
        let all: Vec<u8> = (0..rows * width / dtype.block_size() * size)
            .map(|i| match i % size {
                at if scales.iter().any(|scale| at == scale + 1) => (i * 7 % 60 + 4) as u8,
                2 => 0x80,
                _ => (i * i * 31 + i * 7 + i / 251) as u8,
            })
            .collect();
        let x = numbers(count * width, 10);
        let input = Rounded::of(&x, width, count, width);
        let on = |processor: Width| {
            let mut y = vec![0.0; count * rows];
            let target = Target::new(&mut y, rows);
            #[expect(unsafe_code, reason = "tests multiply rounded rows themselves")]
            // SAFETY: nobody writes the rows.
            let input = unsafe { input.rows(0, count) };
            let scratch = &mut eight::Scratch::default();
            let all = all.as_slice();
            let beside = &mut Default::default();
            let product =
                eight::Product { rows, after: 0, all, kept, input, scratch, beside, target };
            integers_on(processor, product);
            y
        };
        let expected = on(Width::Portable);
        assert!(expected.iter().any(|&y| y.abs() > 1.0) && expected.iter().all(|y| y.is_finite()));
        assert_eq!(on(Width::integers()), expected, "{dtype:?}");
        #[cfg(target_arch = "x86_64")]
        if Width::integers() == Width::Avx512 {
            assert_eq!(on(Width::Avx2), expected, "{dtype:?}");
        }
    }
}

#[test]
fn narrow_products_are_added_to_one_row_as_to_many() {
    for (width, count) in [(8, 7), (4, 5), (16, 6), (40, 9), (3, 4)] {
        let (w, u) = (numbers(37 * width, 3), numbers(count * width, 4));
        let outer = numbers(37, 5);
        let matrix = Matrix::new(Numbers::F32(&w), 37, width).unwrap();
        let added = |matrix: Matrix<'_>, outer: Option<&[f32]>, u: &[f32]| {
            let mut out = vec![0.5; u.len() / width * matrix.rows()];
            let input = Input { x: u, stride: width, count: u.len() / width, rounded: None };
            let target = Target::new(&mut out, matrix.rows());
            matrix.add_product(input, outer, &mut Scratch::default(), target);
            out
        };
        for outer in [None, Some(outer.as_slice())] {
            let all = added(matrix, outer, &u);
            for (i, (found, exact)) in all.iter().zip(exact(&w, &u, count, width)).enumerate() {
                let factor = outer.map_or(1.0, |outer| f64::from(outer[i % 37]));
                assert!((f64::from(*found) - 0.5 - exact * factor).abs() < 1e-5);
            }
            for rows in 1..count {
                assert_eq!(added(matrix, outer, &u[..rows * width]), all[..rows * 37]);
            }
            for first in [1, 5, 20] {
                let part = matrix.part(first..37);
                let found = added(part, outer.map(|outer| &outer[first..]), &u[..3 * width]);
                for (found, all) in found.chunks(37 - first).zip(all.chunks(37)) {
                    assert_eq!(found, &all[first..]);
                }
            }
        }
    }
}

/// The sum of a row with the lanes of a width.
struct Sum<'a>(&'a [f32]);

impl Task for Sum<'_> {
    type Output = Vec<f32>;

    #[inline(always)]
    #[expect(unsafe_code, reason = "tests reach the lanes themselves")]
    unsafe fn run<L: Lanes>(self) -> Vec<f32> {
        let at = self.0.as_ptr();
        assert!(self.0.len() >= 256);
        // SAFETY: sixteen times sixteen numbers are there; the caller vouches for the processor.
        unsafe {
            let mut all = [L::splat(0.0); 16];
            for (i, lanes) in all.iter_mut().enumerate() {
                *lanes = L::load(at.add(16 * i));
            }
            let mut found = L::sums(all).to_vec();
            found.extend(all.iter().map(|lanes| lanes.sum()));
            found.extend(L::eights(at, all[1]));
            for column in L::columns(at) {
                let mut turned = [0.0; 16];
                column.store(turned.as_mut_ptr());
                found.extend(turned);
            }
            found
        }
    }
}

#[test]
fn every_width_of_instructions_adds_in_the_same_order() {
    let x = numbers(256, 5);
    let expected = dispatch_on(Width::Portable, Sum(&x));
    assert_eq!(expected[..16], expected[16..32]);
    assert_eq!(dispatch(Sum(&x)), expected);
    #[cfg(target_arch = "x86_64")]
    if Width::detect() == Width::Avx512 {
        assert_eq!(dispatch_on(Width::Avx2, Sum(&x)), expected);
    }
}

#[test]
fn attention_is_that_of_the_network() {
    let (heads, width, size, count) = (3, 24, 32, 75);
    let q = numbers(heads * width, 6);
    let (keys, values) = (numbers(96 * width, 7), numbers(96 * width, 8));
    for start in [0, 40] {
        let mut out = vec![0.0; heads * width];
        let block = |i: usize| {
            let span = i * size * width..(i + 1) * size * width;
            (&keys[span.clone()], &values[span])
        };
        let seen = Seen { positions: start..count, block: size, scale: 0.2 };
        attend(&q, width, seen, block, &mut Vec::new(), &mut out);
        let tensor = |v: &[f32], rows| Tensor::from_slice(v, (rows, width), &Device::Cpu).unwrap();
        let part = |v: &[f32]| tensor(&v[start * width..count * width], count - start);
        let scores = (tensor(&q, heads).matmul(&part(&keys).t().unwrap()).unwrap() * 0.2).unwrap();
        let expected = candle_nn::ops::softmax(&scores, 1).unwrap().matmul(&part(&values)).unwrap();
        let expected: Vec<f32> = expected.flatten_all().unwrap().to_vec1().unwrap();
        for (found, expected) in out.iter().zip(expected) {
            assert!((found - expected).abs() < 1e-5, "{found} {expected}");
        }
    }
}

#[test]
fn a_team_does_every_item_once_and_in_phases() {
    for members in [1, 2, 5] {
        let board = Board::new(100);
        run(members, |mut member| {
            for phase in 0..50 {
                member.share(100, |i| {
                    #[expect(unsafe_code, reason = "tests reach the board itself")]
                    // SAFETY: every item changes its own number, and reads none of another phase.
                    let mine = unsafe { board.write(i..i + 1) };
                    assert_eq!(mine[0], phase as f32);
                    mine[0] += 1.0;
                });
            }
        });
        #[expect(unsafe_code, reason = "tests reach the board itself")]
        // SAFETY: the team is done.
        let all = unsafe { board.read(0..100) };
        assert!(all.iter().all(|&x| (x - 50.0).abs() < 1e-6));
    }
}

#[test]
#[should_panic]
fn a_team_that_fails_ends() {
    run(3, |mut member| {
        member.share(3, |i| assert!(i != 1, "an item fails"));
    });
}
