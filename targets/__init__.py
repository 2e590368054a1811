"""What is audited: data, models, training loops, reference mechanisms and planted faults.

Where things are, by what a training run is made of:

- a run: `observed`, `script`, `released`, `trainer`, `recipe`, `ensemble` start one; `observe` instruments
  it; `transcript`, `neighbouring_run` and `post_processing` run it again on neighbouring data
- data: `sources`, `leaves`, `held`, `items`, `collation`, `draws`, `taken`, `passed_over`, `unhanded`,
  `batches`
- forward and backward pass: `coupling` asks `forward`, `sway`, `blends`, `mixing`, `carried`, `scaling`
  and `ghost`; `tape` takes operations down, `movement` compares gradients, `planted` lets records ride along
- private steps: `probe` offers each to the attacks, `execution` executes it again, `noisy_sum` and
  `noise_tap` tell what is made of its noisy sum; `plain_probe` is for training without privacy
- other steps and writes: `bypass`, `applied`, `standing`
- accounting and remarks: `books`, `steps`, `remarks`
- models that are attacked: `answers`, `inversion`, `stationary`, `representatives`, `convex`, `language`
- what is built in: `datasets`, `models`, `broken` (the zoo), `mechanisms`; `libraries` are those of others,
  and `releases` is how any mechanism is called
- used by many: `rows`, `randomness`, `unwritten`, `places`, `threads`
"""
