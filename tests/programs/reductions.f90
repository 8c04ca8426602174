! Fortran OpenMP: a stencil, workshare, a reduction of an array, atomics, a nested region, dynamic schedule.
!
! Owns deterministic output: integers only. Must not know hosts.
program reductions
  use, intrinsic :: iso_fortran_env, only: int64
  use omp_lib
  implicit none
  integer, parameter :: side = 400, sweeps = 12, bins = 64
  integer(int64), allocatable :: field(:, :), next(:, :)
  integer(int64) :: histogram(bins), total, counted
  integer :: i, j, sweep, members

  allocate (field(side, side), next(side, side))
  histogram = 0
  counted = 0
  members = 0

  !$omp parallel do schedule(static) private(i)
  do j = 1, side
    do i = 1, side
      field(i, j) = mod(int(i, int64) * 7919 + int(j, int64) * 104729, 1000003_int64)
    end do
  end do

  do sweep = 1, sweeps
    !$omp parallel default(shared) private(i, j)
    !$omp do schedule(dynamic, 8)
    do j = 1, side
      do i = 1, side
        next(i, j) = mod(field(i, j) * 5 + field(merge(i - 1, side, i > 1), j) + field(i, merge(j - 1, side, j > 1)) &
          + field(merge(i + 1, 1, i < side), j) + field(i, merge(j + 1, 1, j < side)), 1000003_int64)
      end do
    end do
    !$omp workshare
    field = next
    !$omp end workshare
    !$omp end parallel
  end do

  total = 0
  !$omp parallel do reduction(+:total, histogram) private(i)
  do j = 1, side
    do i = 1, side
      total = total + field(i, j)
      histogram(1 + int(mod(field(i, j), int(bins, int64)))) = histogram(1 + int(mod(field(i, j), int(bins, int64)))) + 1
    end do
  end do

  call omp_set_max_active_levels(2)
  !$omp parallel num_threads(2)
  !$omp parallel do num_threads(2) schedule(guided)
  do i = 1, 1000
    !$omp atomic
    counted = counted + i
  end do
  !$omp end parallel

  !$omp parallel
  !$omp atomic
  members = members + 1
  !$omp end parallel

  print '(a, i0)', 'total ', total
  print '(a, i0, a, i0)', 'fullest bin ', maxloc(histogram), ' has ', maxval(histogram)
  print '(a, i0, a, i0)', 'counted ', counted, ' members ', members
end program reductions
