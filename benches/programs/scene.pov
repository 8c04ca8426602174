// The scene of tests/programs under two lights with soft shadows of 8 by 8 rays: work enough that starting up does not count.
#version 3.7;
global_settings { assumed_gamma 1.0 max_trace_level 6 }
camera { location <0, 2.2, -6> look_at <0, 0.8, 0> angle 50 }
light_source { <5, 8, -6> rgb 0.7 area_light <1.5, 0, 0>, <0, 0, 1.5>, 8, 8 }
light_source { <-6, 7, -4> rgb 0.4 area_light <1.5, 0, 0>, <0, 0, 1.5>, 8, 8 }
background { rgb <0.35, 0.45, 0.7> }
plane { y, 0 pigment { checker rgb 0.9, rgb <0.2, 0.3, 0.25> } finish { reflection 0.2 } }
#declare Index = 0;
#while (Index < 25)
  sphere {
    <mod(Index, 5) - 2, 0.4 + 0.3 * sin(Index * 1.7), div(Index, 5) - 1>, 0.38
    pigment { rgb <0.3 + 0.14 * mod(Index, 5), 0.9 - 0.15 * div(Index, 5), 0.4> }
    finish { phong 0.7 reflection 0.25 }
  }
  #declare Index = Index + 1;
#end
